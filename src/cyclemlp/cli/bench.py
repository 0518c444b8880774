"""`cyclemlp bench`: how fast it is on this machine, against what else there is."""

import logging
import shlex
import sys
from json import dumps
from pathlib import Path
from typing import Any

from cyclopts import App

from cyclemlp.errors import ConfigError

app = App(name="bench", help="Measure speed on this machine: interleaved rounds, medians and spread, threads pinned.")
_logger = logging.getLogger(__name__)


@app.command
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
    from cyclemlp.bench.operators import bench_operators
    from cyclemlp.bench.rounds import Plan

    if out is not None and out.is_dir():
        raise ConfigError(f"--out {out} is a folder; give a file in it, such as {out / 'op.json'}")
    plan = Plan(rounds=rounds) if threads is None else Plan(rounds=rounds, threads=threads)
    record = bench_operators(plan, stepsize, shlex.join(["cyclemlp", *sys.argv[1:]]))
    _deliver(record, _operator_table(record), out, json)


def _deliver(record: dict[str, Any], table: str, out: Path | None, json: bool) -> None:
    from cyclemlp.files import write_json

    if record["busy"]:
        _logger.warning(
            "the machine was busy: other programs used %.0f %% of it while this ran; measure again when it is quiet",
            100 * record["foreign_share"],
        )
    if out is not None:
        write_json(out, record)
    sys.stdout.write(dumps(record) + "\n" if json else table)


def _operator_table(record: dict[str, Any]) -> str:
    environment = record["environment"]
    lines = [
        f"{environment['processor']}, {environment['threads']} threads, {record['rounds']} rounds, "
        f"stepsize {tuple(record['stepsize'])}, matrix product {record['matrix_product']['gflops_per_s']:.0f} GFLOP/s",
        "ms: median (interquartile range); a ratio is left out where the spread is as large as the difference",
    ]
    heading = ("input NHWC", "cycle_fc", "deform_conv2d", "linear", "deform / ours", "ours / linear")
    for direction in dict.fromkeys(case["pass"] for case in record["cases"]):
        rows = [_operator_row(case) for case in record["cases"] if case["pass"] == direction]
        lines += ["", direction, *_aligned([heading, *rows])]
    return "\n".join(lines) + "\n"


def _operator_row(case: dict[str, Any]) -> tuple[str, ...]:
    times = [f"{t['median_s'] * 1e3:.3f} ({t['iqr_s'] * 1e3:.3f})" for t in case["operators"].values()]
    faster = _ratio(case["times_faster_than_deform_conv2d"], ">=", case["target_times_faster"])
    over_linear = _ratio(case["time_over_linear"], "<=", case["target_time_over_linear"])
    return ("x".join(map(str, case["shape_nhwc"])), *times, faster, over_linear)


def _ratio(value: float | None, sign: str, target: float | None) -> str:
    shown = "-" if value is None else f"{value:.2f}"
    return shown if target is None else f"{shown} ({sign} {target:g})"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
