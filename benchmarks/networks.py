"""Whole networks in several runtimes, next to the rate of a matrix product measured in the same rounds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import peak
from benchmarks.records import ratio
from benchmarks.runtimes import DEPLOYED, FORWARD, export_all, suite, suite_name
from benchmarks.subjects import Subject, counts, plain_network
from cyclemlp.inference.rounds import Measurement, Plan, Timing, measure

SAMPLE_SECONDS = 0.5
"""A measurement repeats a network until about this much time has passed."""


@dataclass(frozen=True)
class Group:
    """Subjects measured in the same rounds, each in all of these runtimes."""

    subjects: tuple[Subject, ...]
    runtimes: tuple[str, ...]


@dataclass(frozen=True)
class GroupResult:
    """What was measured in the rounds of a group."""

    group: Group
    measured: Measurement

    def timing(self, subject: Subject, runtime: str) -> Timing:
        """Of one forward pass."""
        return self.measured.timings[suite_name(subject, runtime), FORWARD]

    def bound(self, multiply_adds: int) -> Timing:
        """The time of this many multiply-adds at the rate of the matrix product."""
        return Timing(tuple(2 * multiply_adds / peak.FLOPS * each for each in peak.timing(self.measured).seconds))

    def entries(self) -> list[dict[str, Any]]:
        """The subjects for JSON."""
        return [self._entry(subject) for subject in self.group.subjects]

    def _entry(self, subject: Subject) -> dict[str, Any]:
        """Its counts, its bound, and for each runtime its latency, that over the bound, and its memory."""
        counted = counts(subject)
        bound = self.bound(subject.batch * counted["multiply_adds"])
        measured = {}
        for runtime in self.group.runtimes:
            timing = self.timing(subject, runtime)
            memory = self.measured.peak_bytes.get(suite_name(subject, runtime))
            measured[runtime] = {
                **timing.to_dict(), "over_bound": ratio(timing, bound), "peak_process_bytes": memory
            }  # fmt: skip
        return {
            "model": subject.model,
            "size": subject.size,
            "batch": subject.batch,
            **counted,
            "bound_s": bound.median,
            "runtimes": measured,
        }


def measure_groups(groups: Sequence[Group], plan: Plan) -> list[GroupResult]:
    """Export what has to be, then measure the groups one after the other.

    Raises:
        ConfigError: an unknown model, or one that does not take this size; before anything is measured.
        MissingExtraError: a runtime is not installed.
    """
    for group in groups:
        for subject in group.subjects:
            plain_network(subject)
    with TemporaryDirectory() as folder:
        deployed = [pair for group in groups for pair in _pairs(group) if pair[1] in DEPLOYED]
        export_all(deployed, Path(folder), plan.threads)
        return [
            GroupResult(
                group,
                measure([peak.SUITE, *(suite(*pair, plan.threads, Path(folder)) for pair in _pairs(group))], plan),
            )
            for group in groups
        ]


def _pairs(group: Group) -> Iterable[tuple[Subject, str]]:
    return ((subject, runtime) for subject in group.subjects for runtime in group.runtimes)
