"""A function in a fresh process, so that the memory it needs is its own."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_LOADED_ONCE = ["torch", "timm", "benchmarks.subjects"]


def in_fresh_process(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What `function` of a module gives, called in a process that ends with it.

    Where the system can fork, it is a copy of a process that has only loaded the libraries: they take seconds to load.

    Raises:
        concurrent.futures.process.BrokenProcessPool: the process was killed, for want of memory most likely.
    """
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(_LOADED_ONCE)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args, **kwargs).result()
