"""Whole networks in every runtime, beside the rate of a matrix product measured in the same rounds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import peak
from benchmarks.exported import export_all
from benchmarks.rounds import Measurement, Plan, measure
from benchmarks.runtimes import DEPLOYED, FORWARD, check_runtimes, suite, suite_name
from benchmarks.subjects import Subject, counts, plain_network
from benchmarks.timing import Timing, ratio
from benchmarks.worker import Suite
from cyclemlp.machine import environment

SAMPLE_SECONDS = 0.5
"""A measurement repeats a network for about so long."""


@dataclass(frozen=True)
class Group:
    """Subjects measured in the same rounds, each in all of these runtimes."""

    subjects: tuple[Subject, ...]
    runtimes: tuple[str, ...]


@dataclass(frozen=True)
class GroupResult:
    """What the rounds of a group gave."""

    measured: Measurement

    @property
    def product(self) -> Timing:
        """The matrix product of these rounds."""
        return self.measured.timings[peak.NAME, peak.NAME]

    def timing(self, subject: Subject, runtime: str) -> Timing:
        """Of one forward pass."""
        return self.measured.timings[suite_name(subject, runtime), FORWARD]

    def bound(self, multiply_adds: int) -> Timing:
        """The time of so many multiply-adds at the rate of the matrix product."""
        return Timing(tuple(2 * multiply_adds / peak.FLOPS * each for each in self.product.seconds))


def bench_models(
    names: Sequence[str],
    sizes: Sequence[int],
    batches: Sequence[int],
    runtimes: Sequence[str],
    plan: Plan,
    command: str = "cyclemlp bench model",
) -> dict[str, Any]:
    """Measure all combinations and give the record for JSON; those of a size and batch share their rounds.

    Raises:
        ConfigError: an unknown model or runtime, or a model that does not take this size.
        MissingExtraError: a runtime is not installed.
    """
    check_runtimes(runtimes)
    groups = [
        Group(tuple(Subject(name, size, batch) for name in names), tuple(runtimes))
        for size in sizes
        for batch in batches
    ]
    for group in groups:
        for subject in group.subjects:
            plain_network(subject)  # what cannot be built is refused before anything is measured
    results = measure_groups(groups, plan)
    models = [
        entry(result, subject, group.runtimes)
        for group, result in zip(groups, results, strict=True)
        for subject in group.subjects
    ]
    return {"bench": "model", **summary(results, plan, command), "models": models}


def measure_groups(groups: Sequence[Group], plan: Plan) -> list[GroupResult]:
    """Export what has to be, then measure the groups one after the other."""
    with TemporaryDirectory() as folder:
        deployed = [each for group in groups if set(DEPLOYED) & set(group.runtimes) for each in group.subjects]
        files = export_all(deployed, Path(folder), plan.threads)
        return [GroupResult(measure(list(_suites(group, files, plan.threads)), plan)) for group in groups]


def _suites(group: Group, files: Any, threads: int) -> Iterable[Suite]:
    yield Suite(peak.NAME, peak.cases, (threads,))
    for subject in group.subjects:
        for runtime in group.runtimes:
            yield suite(subject, runtime, threads, files.get(subject))


def entry(result: GroupResult, subject: Subject, runtimes: Iterable[str]) -> dict[str, Any]:
    """A subject for JSON: its counts, its bound, and in each runtime its latency, over the bound, and memory."""
    counted = counts(subject)
    bound = result.bound(subject.batch * counted["multiply_adds"])
    measured = {}
    for runtime in runtimes:
        timing = result.timing(subject, runtime)
        memory = result.measured.peak_bytes.get(suite_name(subject, runtime))
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


def summary(results: Sequence[GroupResult], plan: Plan, command: str) -> dict[str, Any]:
    """What every record has: where and how it was measured, and how disturbed."""
    shares = [r.measured.foreign_share for r in results if r.measured.foreign_share is not None]
    product = Timing(tuple(seconds for result in results for seconds in result.product.seconds))
    return {
        "environment": environment(command, plan.threads, results[0].measured.cores),
        "rounds": plan.rounds,
        "foreign_share": max(shares, default=None),
        "busy": any(result.measured.busy for result in results),
        "matrix_product": {"gflops_per_s": peak.gflops_per_second(product), **product.to_dict()},
    }
