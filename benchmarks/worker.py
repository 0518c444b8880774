"""One runtime in a process of its own: runtimes that share one steal each other's cores while their threads wait."""

import gc
import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from cyclemlp.machine import peak_bytes, pin_to_cores

Case = Callable[[], object]


@dataclass(frozen=True)
class Suite:
    """What one process measures.

    `build` runs in that process, and so must be importable from a module; it gives the cases by name.
    """

    name: str
    build: Callable[..., Mapping[str, Case]]
    arguments: tuple[Any, ...] = ()


class Worker:
    """A process, pinned to its cores, that times the cases of a suite one at a time when asked.

    A context manager; the process ends with the block.

    Raises:
        RuntimeError: from any method, when the process has died; its own traceback is on standard error.
    """

    def __init__(self, suite: Suite, threads: int) -> None:
        self.suite = suite
        self.cores: list[int] = []
        self.cases: list[str] = []
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, suite, threads), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> "Worker":
        self.cores, self.cases = self._receive()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()  # the process reads the end of its orders
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def calibrate(self, case: str, at_least: float) -> int:
        """Runs of `case` that fill `at_least` seconds, after warming it up."""
        self.seconds(case, 1)
        once = min(self.seconds(case, 1) for _ in range(2))
        return max(1, round(at_least / once))

    def seconds(self, case: str, runs: int) -> float:
        """Mean wall time of one run over `runs` runs in a row."""
        return float(self._ask((case, runs)))

    def processor_seconds(self) -> float:
        """Processor time the process has used so far."""
        return float(self._ask(None)[0])

    def peak_bytes(self) -> int | None:
        """Most memory the process has held, its libraries included; None where the system does not tell."""
        peak: int | None = self._ask(None)[1]
        return peak

    def _ask(self, order: tuple[str, int] | None) -> Any:
        try:
            self._pipe.send(order)
        except BrokenPipeError as error:
            raise self._died() from error
        return self._receive()

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise self._died() from error

    def _died(self) -> RuntimeError:
        return RuntimeError(f"the process that measures {self.suite.name!r} died; see its message above")


def _serve(pipe: Connection, suite: Suite, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; we end when it closes the pipe
    cores = pin_to_cores(threads)
    cases = suite.build(*suite.arguments)
    pipe.send((cores, list(cases)))
    gc.collect()
    gc.disable()  # no collection in the middle of a measurement
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        spent = (time.process_time(), peak_bytes()) if order is None else None
        pipe.send(spent if order is None else _mean_seconds(cases[order[0]], order[1]))


def _mean_seconds(case: Case, runs: int) -> float:
    if runs > 1:  # a short case would also pay for the caches and free memory the case before it left behind
        case()
    start = time.perf_counter()
    for _ in range(runs):
        case()
    return (time.perf_counter() - start) / runs
