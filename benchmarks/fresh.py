"""A function call in a fresh process, so that the memory it needs is its own."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

from cyclemlp.machine import pin_to_cores

P = ParamSpec("P")
R = TypeVar("R")

_PRELOADED = ["torch", "timm", "benchmarks.subjects"]


def in_fresh_process(threads: int, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The result of a module's `function`, called in a process that ends with it and uses `threads` pinned threads.

    Where the system can fork, the process is a copy of one that has only loaded the libraries, which takes seconds.

    Raises:
        concurrent.futures.process.BrokenProcessPool: the process was killed, most probably for lack of memory.
    """
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(_PRELOADED)
    with ProcessPoolExecutor(1, mp_context=context, initializer=_limit_threads, initargs=(threads,)) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _limit_threads(threads: int) -> None:
    import torch

    pin_to_cores(threads)
    torch.set_num_threads(threads)


def pinned_cores() -> list[int]:
    """The cores this process is kept on, or an empty list where the system cannot pin."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
