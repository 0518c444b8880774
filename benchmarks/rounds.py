"""Interleaved measurement: every case once a round, so that a slow minute of the machine hits all of them alike."""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from tqdm import tqdm

from benchmarks.timing import Timing
from benchmarks.worker import Suite, Worker
from cyclemlp.errors import ConfigError
from cyclemlp.machine import BUSY_SHARE, ForeignLoad, usable_cores


@dataclass(frozen=True)
class Plan:
    """How long and how often to measure."""

    rounds: int = 15
    """Measurements of each case; the median is reported."""
    sample_seconds: float = 0.03
    """A measurement repeats its case until about this much time has passed."""
    threads: int = field(default_factory=lambda: min(2, usable_cores()))
    """Threads of every runtime, pinned to as many cores."""

    def __post_init__(self) -> None:
        if self.rounds < 2:
            raise ConfigError(f"--rounds is {self.rounds}; a spread needs 2 or more")
        if not 1 <= self.threads <= usable_cores():
            raise ConfigError(f"--threads is {self.threads}; allowed here are 1 to {usable_cores()}, the cores at hand")


@dataclass(frozen=True)
class Measurement:
    """Timings by (suite, case), and how much of the machine others used meanwhile."""

    timings: dict[tuple[str, str], Timing]
    cores: list[int]
    foreign_share: float | None
    """Share of all cores used by other programs during the rounds; None where the system does not tell."""
    peak_bytes: dict[str, int | None] = field(default_factory=dict)
    """Most memory each suite's process held, its libraries included."""

    @property
    def busy(self) -> bool:
        """Whether other programs disturbed the measurement."""
        return self.foreign_share is not None and self.foreign_share > BUSY_SHARE


def measure(suites: Sequence[Suite], plan: Plan) -> Measurement:
    """Measure all cases of all suites, each suite in a process of its own, only one case running at any time.

    Raises:
        RuntimeError: one of the processes died.
    """
    with ExitStack() as stack:
        started = [Worker(suite, plan.threads) for suite in suites]  # all load their libraries at once
        workers = [stack.enter_context(worker) for worker in started]
        cases = [(worker, case) for worker in workers for case in worker.cases]
        runs = [worker.calibrate(case, plan.sample_seconds) for worker, case in cases]
        load = ForeignLoad(partial(_processor_seconds, workers))
        seconds: list[list[float]] = [[] for _ in cases]
        for number in tqdm(range(plan.rounds), desc="rounds", file=sys.stderr, disable=None):
            for index in _order(len(cases), number):
                worker, case = cases[index]
                seconds[index].append(worker.seconds(case, runs[index]))
        timings = {
            (worker.suite.name, case): Timing(tuple(each)) for (worker, case), each in zip(cases, seconds, strict=True)
        }
        peaks = {worker.suite.name: worker.peak_bytes() for worker in workers}
        return Measurement(timings, workers[0].cores, load.share(), peaks)


def _order(count: int, number: int) -> range:
    """Forwards in even rounds and backwards in odd ones, so that no case always follows the same one."""
    return range(count) if number % 2 == 0 else range(count - 1, -1, -1)


def _processor_seconds(workers: Sequence[Worker]) -> float:
    return time.process_time() + sum(worker.processor_seconds() for worker in workers)
