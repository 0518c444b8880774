"""What the subjects of `cyclemlp bench` share: their options' checks, tables, and where a record goes."""

import logging
import shlex
import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import Any

from cyclemlp.errors import ConfigError

_logger = logging.getLogger(__name__)

SPREAD_NOTE = "ms: median (interquartile range); a ratio is left out where the spread is as large as the difference"


def command_line() -> str:
    """The command as it was typed, for the record."""
    return shlex.join(["cyclemlp", *sys.argv[1:]])


def check_out(out: Path | None, example: str) -> None:
    """Raise ConfigError where `out` is a folder: found out before anything is measured."""
    if out is not None and out.is_dir():
        raise ConfigError(f"--out {out} is a folder; give a file in it, such as {out / example}")


def deliver(record: dict[str, Any], table: str, out: Path | None, json: bool) -> None:
    """Write the record to `out`, and print it or its table; say on standard error if the machine was busy."""
    from cyclemlp.files import write_json

    if record["busy"]:
        _logger.warning(
            "the machine was busy: other programs used %.0f %% of it while this ran; measure again when it is quiet",
            100 * record["foreign_share"],
        )
    if out is not None:
        write_json(out, record)
    sys.stdout.write(dumps(record) + "\n" if json else table)


def heading(record: dict[str, Any]) -> str:
    """One line: processor, threads, rounds and the rate of the matrix product."""
    environment = record["environment"]
    return (
        f"{environment['processor']}, {environment['threads']} threads, {record['rounds']} rounds, "
        f"matrix product {record['matrix_product']['gflops_per_s']:.0f} GFLOP/s"
    )


def milliseconds(timing: dict[str, Any], digits: int = 3) -> str:
    """Median and spread of a timing, such as `2.000 (0.200)`."""
    return f"{timing['median_s'] * 1e3:.{digits}f} ({timing['iqr_s'] * 1e3:.{digits}f})"


def ratio(value: float | None, sign: str, target: float | None) -> str:
    """A ratio, `-` where there is none, and its target if it has one."""
    shown = "-" if value is None else f"{value:.2f}"
    return shown if target is None else f"{shown} ({sign} {target:g})"


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows as lines, columns aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
