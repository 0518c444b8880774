"""What `cyclemlp bench` and `python -m benchmarks` share: options, their checks, tables, and where a record goes."""

import logging
import shlex
import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cyclemlp.errors import ConfigError
from cyclemlp.files import JsonObject, write_json

_logger = logging.getLogger(__name__)

Numbers = Annotated[tuple[int, ...], Parameter(consume_multiple=True)]
Names = Annotated[tuple[str, ...], Parameter(consume_multiple=True)]
Rounds = Annotated[int, Parameter(help="Measurements of each case; medians and interquartile ranges are over these.")]
Threads = Annotated[int, Parameter(help="Threads, pinned to as many cores.")]
Out = Annotated[Path | None, Parameter(help="Also write the JSON to this file.")]
Json = Annotated[bool, Parameter(help="Print one JSON object instead of a table.")]


def command_line(program: str) -> str:
    """The command as it was typed after `program`, for the record."""
    return shlex.join([*program.split(), *sys.argv[1:]])


def check_out(out: Path | None, example: str) -> None:
    """Raise ConfigError where `out` is a folder, before anything is measured."""
    if out is not None and out.is_dir():
        raise ConfigError(f"--out {out} is a folder; give a file in it, such as {out / example}")


def check_positive(**options: int | Sequence[int]) -> None:
    """Raise ConfigError where one of the options, by their names, has a value below 1."""
    for name, given in options.items():
        for value in (given,) if isinstance(given, int) else given:
            if value < 1:
                raise ConfigError(f"--{name} {value} is not allowed: 1 or more")


def deliver(record: JsonObject, table: str, out: Path | None, json: bool) -> None:
    """Write the record to `out`, print it or its table, and warn on standard error if the machine was busy."""
    if record.get("busy"):
        _logger.warning(
            "the machine was busy: other programs used %.0f %% of it while this ran; measure again when it is quiet",
            100 * record["foreign_share"],
        )
    if out is not None:
        write_json(out, record)
    sys.stdout.write(dumps(record) + "\n" if json else table)


def milliseconds(timing: JsonObject, digits: int = 3) -> str:
    """Median and spread of a timing, such as `2.000 (0.200)`."""
    return f"{timing['median_s'] * 1e3:.{digits}f} ({timing['iqr_s'] * 1e3:.{digits}f})"


def megabytes(count: int | None) -> str:
    """Bytes as megabytes; `-` where the system does not report them."""
    return "-" if count is None else f"{count / 1e6:.0f}"


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows as lines, columns aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
