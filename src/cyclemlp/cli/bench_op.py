"""`cyclemlp bench op`: the operator alone."""

from pathlib import Path
from typing import Any

from cyclemlp.cli.bench_output import SPREAD_NOTE, aligned, check_out, command_line, deliver, heading, milliseconds
from cyclemlp.cli.bench_output import ratio as shown_ratio


def op(
    *,
    rounds: int = 15,
    threads: int | None = None,
    stepsize: tuple[int, int] = (1, 3),
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Time CycleFC against the authors' deformable convolution and a plain linear layer, at the sizes of B1-B4.

    Parameters
    ----------
    rounds
        Measurements of each case; medians and interquartile ranges are over these.
    threads
        Threads, pinned to as many cores (default 2).
    stepsize
        The cycle's length along height and width; one of the two is 1.
    out
        Also write the JSON to this file, such as results/op.json.
    json
        Print one JSON object instead of a table.
    """
    from benchmarks.operators import bench_operators
    from benchmarks.rounds import Plan

    check_out(out, "op.json")
    plan = Plan(rounds=rounds) if threads is None else Plan(rounds=rounds, threads=threads)
    record = bench_operators(plan, stepsize, command_line())
    deliver(record, _table(record), out, json)


def _table(record: dict[str, Any]) -> str:
    lines = [f"{heading(record)}, stepsize {tuple(record['stepsize'])}", SPREAD_NOTE]
    columns = ("input NHWC", "cycle_fc", "deform_conv2d", "linear", "deform / ours", "ours / linear")
    for direction in dict.fromkeys(case["pass"] for case in record["cases"]):
        rows = [_row(case) for case in record["cases"] if case["pass"] == direction]
        lines += ["", direction, *aligned([columns, *rows])]
    return "\n".join(lines) + "\n"


def _row(case: dict[str, Any]) -> tuple[str, ...]:
    times = map(milliseconds, case["operators"].values())
    faster = shown_ratio(case["times_faster_than_deform_conv2d"], ">=", case["target_times_faster"])
    over_linear = shown_ratio(case["time_over_linear"], "<=", case["target_time_over_linear"])
    return ("x".join(map(str, case["shape_nhwc"])), *times, faster, over_linear)
