"""Ours against the networks one would use instead, each row with its target, and accuracy against latency."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import draw_pareto
from benchmarks.networks import SAMPLE_SECONDS, Group, GroupResult, measure_groups
from benchmarks.published import ACCURACY
from benchmarks.records import SPREAD_NOTE, command_line, heading, ratio, shown_ratio, summary
from benchmarks.runtimes import AUTHORS, DEPLOYED
from benchmarks.subjects import Subject, counts
from cyclemlp.cli.bench_output import Json, Out, Rounds, Threads, aligned, check_out, deliver
from cyclemlp.inference.rounds import DEFAULT_THREADS, Plan, Timing

B1, B2 = "cyclemlp_b1", "cyclemlp_b2"
RESNET, SWIN, CONVNEXT = "resnet50", "swin_tiny_patch4_window7_224", "convnext_tiny"
BOUND = "matrix-product bound"
EAGER = "eager"


@dataclass(frozen=True)
class Comparison:
    """One row: the time of `model` over that of `rival`, the best runtime of each; or the inverse in eager mode."""

    model: str
    rival: str
    """A model, the bound, or the authors' operator in the same network."""
    size: int
    target: float
    batch: int = 1

    @property
    def subject(self) -> Subject:
        """Ours."""
        return Subject(self.model, self.size, self.batch)

    @property
    def eager(self) -> bool:
        """Whether it is the authors' operator over ours, at least the target, instead of ours over the rival's."""
        return self.rival == AUTHORS

    def met(self, value: float | None) -> bool | None:
        """Whether the target was met; None where the spread allows no ratio."""
        if value is None:
            return None
        return value >= self.target if self.eager else value <= self.target


COMPARISONS = (
    Comparison(B1, RESNET, 224, 0.62),
    Comparison(B1, RESNET, 512, 0.60),
    Comparison(B2, SWIN, 224, 0.82),
    Comparison(B2, SWIN, 512, 0.70),
    Comparison(B2, CONVNEXT, 224, 0.82),
    Comparison(B2, CONVNEXT, 512, 0.73),
    Comparison(B2, BOUND, 224, 1.18),
    Comparison(B2, BOUND, 512, 1.10),
    Comparison(B2, SWIN, 224, 0.82, batch=8),
    Comparison(B2, AUTHORS, 224, 2.1),
    Comparison(B2, AUTHORS, 512, 2.3),
)


def compare(
    *,
    rounds: Rounds = 9,
    threads: Threads = DEFAULT_THREADS,
    plot: Path | None = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Time B1 and B2 against ResNet-50, Swin-T, ConvNeXt-T, the authors' operator and the matrix-product bound.

    Each row takes the faster of ONNX Runtime and OpenVINO on either side, and has its target. About ten minutes.

    Parameters
    ----------
    plot
        Draw published accuracy against measured latency into this file, such as docs/images/pareto.svg.
    """
    check_out(out, "bench-compare.json")
    record = bench_compare(Plan(rounds, SAMPLE_SECONDS, threads), command_line())
    if plot is not None:
        draw_pareto(record, plot)
    deliver(record, _table(record), out, json)


def bench_compare(plan: Plan, command: str = "", comparisons: Sequence[Comparison] = COMPARISONS) -> dict[str, Any]:
    """Measure and return the record for JSON: rows with targets, all latencies, and the points of the Pareto plot.

    Raises:
        MissingExtraError: a runtime is not installed.
    """
    groups = groups_of(comparisons)
    results = dict(zip(groups, measure_groups(list(groups.values()), plan), strict=True))
    models = [entry for result in results.values() for entry in result.entries()]
    return {
        "bench": "compare",
        **summary([result.measured for result in results.values()], plan, command),
        "rows": [_row(each, results[_key(each)]) for each in comparisons],
        "models": models,
        "pareto": pareto(models),
    }


def groups_of(comparisons: Sequence[Comparison]) -> dict[tuple[int, int, bool], Group]:
    """What is measured together: all of one size, batch and kind of runtime."""
    subjects: dict[tuple[int, int, bool], dict[Subject, None]] = {}
    for each in comparisons:
        wanted = subjects.setdefault(_key(each), {})
        wanted[each.subject] = None
        if each.rival not in (BOUND, AUTHORS):
            wanted[Subject(each.rival, each.size, each.batch)] = None
    return {key: Group(tuple(each), (EAGER, AUTHORS) if key[2] else tuple(DEPLOYED)) for key, each in subjects.items()}


def _key(comparison: Comparison) -> tuple[int, int, bool]:
    return comparison.size, comparison.batch, comparison.eager


def _row(each: Comparison, result: GroupResult) -> dict[str, Any]:
    subject = each.subject
    if each.eager:
        over, under, used = result.timing(subject, AUTHORS), result.timing(subject, EAGER), (AUTHORS, EAGER)
    else:
        ours, over = best(result, subject)
        if each.rival == BOUND:
            theirs, under = BOUND, result.bound(subject.batch * counts(subject)["multiply_adds"])
        else:
            theirs, under = best(result, Subject(each.rival, each.size, each.batch))
        used = ours, theirs
    value = ratio(over, under)
    names = (f"{each.model}, authors' operator", each.model) if each.eager else (each.model, each.rival)
    return {
        "size": each.size, "batch": each.batch, "over": names[0], "under": names[1], "runtimes": list(used),
        "over_s": over.median, "under_s": under.median, "ratio": value,
        "target": each.target, "target_is": "at least" if each.eager else "at most", "met": each.met(value),
    }  # fmt: skip


def best(result: GroupResult, subject: Subject) -> tuple[str, Timing]:
    """The faster of ONNX Runtime and OpenVINO, and its timing."""
    timings = {runtime: result.timing(subject, runtime) for runtime in DEPLOYED}
    runtime = min(timings, key=lambda name: timings[name].median)
    return runtime, timings[runtime]


def pareto(models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Published accuracy against the latency measured at 224 and batch 1, and whether no other is better in both."""
    points: list[dict[str, Any]] = []
    for each in models:
        timings = [each["runtimes"][name]["median_s"] for name in DEPLOYED if name in each["runtimes"]]
        accuracy = ACCURACY.get(each["model"])
        if timings and accuracy and (each["size"], each["batch"]) == (224, 1):
            points.append({"model": each["model"], "top1": accuracy.top1, "source": accuracy.source, "s": min(timings)})
    for point in points:
        point["front"] = not any(
            other["top1"] >= point["top1"] and other["s"] < point["s"] for other in points if other is not point
        )
    return points


def _table(record: dict[str, Any]) -> str:
    rows = [("image", "batch", "time of", "over", "in", "ms", "over ms", "ratio", "target", "met")]
    for row in record["rows"]:
        sign = ">=" if row["target_is"] == "at least" else "<="
        met = {True: "yes", False: "no", None: "-"}[row["met"]]
        rows.append(
            (str(row["size"]), str(row["batch"]), row["over"], row["under"], " / ".join(row["runtimes"]),
             f"{1e3 * row['over_s']:.1f}", f"{1e3 * row['under_s']:.1f}", shown_ratio(row["ratio"], sign, None),
             f"{sign} {row['target']:g}", met)
        )  # fmt: skip
    return "\n".join([heading(record), SPREAD_NOTE, "", *aligned(rows)]) + "\n"
