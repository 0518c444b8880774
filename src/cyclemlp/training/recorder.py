"""The numbers of a run: metrics.csv for people and spreadsheets, TensorBoard events for curves while it runs."""

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cyclemlp.files import write_csv
from cyclemlp.training.event_file import EventFile

LOSS_COLUMNS = ("step", "epoch", "seconds", "lr", "images_per_second", "loss")

_STEP_DIGITS = 15


class Recorder:
    """Appends rows to `run_dir/metrics.csv`, and the same to TensorBoard.

    A continued run removes the rows after the step it continues from, so that no step appears twice.
    """

    def __init__(self, run_dir: Path, columns: Sequence[str], after_step: int = 0) -> None:
        self._path = run_dir / "metrics.csv"
        self._columns = list(columns)
        kept = [row for row in read_metrics(run_dir) if int(row["step"]) <= after_step]
        _write_rows(self._path, self._columns, kept)
        self._events = EventFile(run_dir / "tensorboard", after_step + 1)

    def add(self, step: int, values: Mapping[str, float | None]) -> None:
        """Write one row; a value of None leaves its cell empty."""
        known = {name: value for name, value in values.items() if value is not None}
        cells = {"step": str(step)} | {name: f"{value:.6g}" for name, value in known.items()}
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns, restval="", lineterminator="\n").writerow(cells)
        self._events.add(step, known)

    def close(self) -> None:
        """Close the event file."""
        self._events.close()


def read_metrics(run_dir: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv, none where there is no file; a last line truncated by a crash is left out.

    So is whatever else is no row with a step, and cells that are no numbers are empty: a run that took days is not to
    end because a spreadsheet saved its table with other separators, or a disk filled a part of it with zeros.
    """
    path = run_dir / "metrics.csv"
    if not path.is_file():
        return []
    # Not line by line: names of classes may hold any character that ends a line of text but not a row.
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    separator = ";" if text.startswith("step;") else ","
    table = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""), restval="", delimiter=separator)
    rows = list[dict[str, str]]()
    with suppress(csv.Error):  # a quote without its end
        for row in table:
            rows.append({name: _number(cell, separator) for name, cell in row.items() if isinstance(cell, str)})
    return [row for row in rows if row.get("step", "").isdecimal() and len(row["step"]) <= _STEP_DIGITS]


def _number(cell: str, separator: str) -> str:
    """The cell as it stands, with a decimal point; empty where it is no number."""
    cell = cell if separator == "," else cell.replace(",", ".")
    try:
        float(cell)
    except ValueError:
        return ""
    return cell


def record_last(run_dir: Path, step: int, metrics: Mapping[str, float | None]) -> None:
    """Add the final evaluation at the last step; it replaces that of a run which was resumed after its end."""
    rows = read_metrics(run_dir)
    columns = list(rows[0]) if rows else [*LOSS_COLUMNS, *metrics]
    kept = [row for row in rows if not (int(row["step"]) == step and any(row.get(name) for name in metrics))]
    _write_rows(run_dir / "metrics.csv", columns, kept)
    recorder = Recorder(run_dir, columns, step)
    recorder.add(step, metrics)
    recorder.close()


def _write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    write_csv(path, [columns, *([row.get(name, "") for name in columns] for row in rows)])
