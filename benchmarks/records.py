"""What the records of several benchmarks share: their summary, their ratios, and how both are shown."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import peak
from cyclemlp.cli.bench_output import command_line as typed_command
from cyclemlp.inference.rounds import Measurement, Plan, Timing, disturbance
from cyclemlp.machine import environment

SPREAD_NOTE = "ms: median (interquartile range); a ratio is left out where the spread is as large as the difference"


def command_line() -> str:
    """The command as it was typed."""
    return typed_command("python -m benchmarks")


def ratio(over: Timing, under: Timing) -> float | None:
    """Ratio of the medians, or None where either spread is as large as their difference and it would mean nothing."""
    difference = abs(over.median - under.median)
    if max(over.spread, under.spread) >= difference:
        return None
    return over.median / under.median


def summary(measurements: Sequence[Measurement], plan: Plan, command: str) -> dict[str, Any]:
    """For JSON: where and how was measured, how much it was disturbed, and the rate of the matrix product meanwhile."""
    product = Timing(tuple(seconds for each in measurements for seconds in peak.timing(each).seconds))
    return {
        "environment": environment(command, plan.threads, measurements[0].cores),
        "rounds": plan.rounds,
        **disturbance(measurements),
        "matrix_product": {"gflops_per_s": peak.gflops_per_second(product), **product.to_dict()},
    }


def heading(record: Mapping[str, Any]) -> str:
    """One line: processor, threads, rounds and the rate of the matrix product."""
    environment = record["environment"]
    return (
        f"{environment['processor']}, {environment['threads']} threads, {record['rounds']} rounds, "
        f"matrix product {record['matrix_product']['gflops_per_s']:.0f} GFLOP/s"
    )


def shown_ratio(value: float | None, sign: str, target: float | None) -> str:
    """A ratio, `-` where there is none, and its target if it has one."""
    shown = "-" if value is None else f"{value:.2f}"
    return shown if target is None else f"{shown} ({sign} {target:g})"
