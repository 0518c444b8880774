"""Interleaved measurements: every case runs once a round, so that a slow minute of the machine affects all of them.

Runtimes that share a process take the cores from each other while their threads wait. Each suite of cases therefore has
a process of its own, pinned to the same cores, and only one case runs at any time.
"""

import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any, ParamSpec, TypeVar

from tqdm import tqdm

from cyclemlp.errors import ConfigError
from cyclemlp.files import JsonObject
from cyclemlp.machine import BUSY_SHARE, ForeignLoad, peak_bytes, pin_to_cores, usable_cores

P = ParamSpec("P")
R = TypeVar("R")

Case = Callable[[], object]
DEFAULT_THREADS = min(2, usable_cores())


@dataclass(frozen=True)
class Timing:
    """Repeated measurements of one case, in seconds."""

    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.seconds) < 2:
            raise ValueError(f"a timing of {len(self.seconds)} measurements has no spread; it needs 2 or more")

    @property
    def median(self) -> float:
        """Median, in seconds."""
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """Interquartile range, in seconds."""
        lower, _, upper = quantiles(self.seconds, n=4, method="inclusive")
        return upper - lower

    def to_dict(self) -> JsonObject:
        """For JSON, with the single measurements."""
        return {"median_s": self.median, "iqr_s": self.spread, "samples_s": list(self.seconds)}


@dataclass(frozen=True)
class Plan:
    """How long and how often to measure."""

    rounds: int = 15
    """Measurements of each case; the median is reported."""
    sample_seconds: float = 0.03
    """A measurement repeats its case until about this much time has passed."""
    threads: int = DEFAULT_THREADS
    """Threads of every runtime, pinned to as many cores."""

    def __post_init__(self) -> None:
        if self.rounds < 2:
            raise ConfigError(f"--rounds is {self.rounds}; a spread needs 2 or more")
        if not 1 <= self.threads <= usable_cores():
            raise ConfigError(
                f"--threads is {self.threads}; allowed here are 1 to {usable_cores()}, the number of usable cores"
            )


@dataclass(frozen=True)
class Suite:
    """What one process measures.

    `build` is called with `arguments` in that process, so both must be picklable; it returns the cases by name.
    """

    name: str
    build: Callable[..., Mapping[str, Case]]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """Timings by (suite, case), and how much of the machine other programs used meanwhile."""

    timings: dict[tuple[str, str], Timing]
    cores: list[int]
    foreign_share: float | None
    """Share of all cores used by other programs during the rounds; None where the system does not report it."""
    peak_bytes: dict[str, int | None] = field(default_factory=dict)
    """Maximum memory that each suite's process held, including its libraries; None where it is not reported."""

    @property
    def busy(self) -> bool:
        """Whether other programs disturbed the measurement."""
        return self.foreign_share is not None and self.foreign_share > BUSY_SHARE


def measure(suites: Sequence[Suite], plan: Plan) -> Measurement:
    """Measure all cases of all suites, each suite in a process of its own, only one case running at any time.

    Raises what the suites raise while they are built, and RuntimeError where one of the processes died.
    """
    with ExitStack() as stack:
        with _openmp_threads(plan.threads):
            workers = [_Worker(suite, plan.threads, stack) for suite in suites]
        cases = [(worker, case) for worker in workers for case in worker.wait_until_built()]
        runs = [worker.call(_runs_in, plan.sample_seconds, case) for worker, case in cases]
        load = ForeignLoad(lambda: time.process_time() + sum(worker.call(time.process_time) for worker in workers))
        seconds: list[list[float]] = [[] for _ in cases]
        order = range(len(cases))
        for _ in tqdm(range(plan.rounds), desc="rounds", file=sys.stderr, disable=None):
            for index in order:
                worker, case = cases[index]
                seconds[index].append(worker.call(_mean_seconds, case, runs[index]))
            order = order[::-1]  # so that no case always follows the same one
        keys = [(worker.suite.name, case) for worker, case in cases]
        timings = {key: Timing(tuple(each)) for key, each in zip(keys, seconds, strict=True)}
        peaks = {worker.suite.name: worker.call(peak_bytes) for worker in workers}
        return Measurement(timings, workers[0].cores, load.share(), peaks)


def disturbance(measurements: Sequence[Measurement]) -> JsonObject:
    """For JSON: how much other programs used the machine at worst, and whether that was too much."""
    shares = [each.foreign_share for each in measurements if each.foreign_share is not None]
    return {"foreign_share": max(shares, default=None), "busy": any(each.busy for each in measurements)}


@contextmanager
def _openmp_threads(count: int) -> Iterator[None]:
    """Processes that are started in the block use this many threads in torch, whenever they import it."""
    name = "OMP_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class _Worker:
    """A process that builds the cases of a suite and times one of them when asked, until `stack` ends it."""

    def __init__(self, suite: Suite, threads: int, stack: ExitStack) -> None:
        self.suite = suite
        self.cores: list[int] = []
        self._pool = stack.enter_context(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")))
        self._built = self._pool.submit(_build, suite, threads)  # starts the process; all suites are built at once

    def wait_until_built(self) -> list[str]:
        """The names of the cases."""
        with self._naming_the_dead():
            self.cores, cases = self._built.result()
            return cases

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `function` returns in the process."""
        with self._naming_the_dead():
            return self._pool.submit(function, *args, **kwargs).result()

    @contextmanager
    def _naming_the_dead(self) -> Iterator[None]:
        try:
            yield
        except BrokenProcessPool as error:
            raise RuntimeError(f"the process that measures {self.suite.name!r} died; see its message above") from error


_cases: dict[str, Case] = {}
"""In a worker's process: what it measures."""


def _build(suite: Suite, threads: int) -> tuple[list[int], list[str]]:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this process
    cores = pin_to_cores(threads)
    _cases.update(suite.build(*suite.arguments))
    gc.collect()
    gc.disable()  # no collection in the middle of a measurement
    return cores, list(_cases)


def _runs_in(at_least: float, name: str) -> int:
    """The number of runs of a case that takes `at_least` seconds, after warming it up."""
    _mean_seconds(name, 1)
    once = min(_mean_seconds(name, 1) for _ in range(2))
    return max(1, round(at_least / once))


def _mean_seconds(name: str, runs: int) -> float:
    """Mean wall time of one run of a case over `runs` runs in a row."""
    case = _cases[name]
    if runs > 1:  # a short case would also pay for the caches and free memory that the case before it left behind
        case()
    start = time.perf_counter()
    for _ in range(runs):
        case()
    return (time.perf_counter() - start) / runs
