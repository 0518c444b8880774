"""The numbers of a run: metrics.csv for people, spreadsheets and the report, and the loggers of `--logger`."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cyclemlp.files import JsonObject, write_csv
from cyclemlp.training.loggers import Ending, RunLoggers
from cyclemlp.training.stopping import TrainingStopped

LOSS_COLUMNS = ("step", "epoch", "seconds", "lr", "images_per_second", "loss")

_STEP_DIGITS = 15


class Recorder:
    """Appends rows to `run_dir/metrics.csv`, and the same to the loggers.

    A continued run removes the rows after the step it continues from, so that no step appears twice.
    """

    def __init__(
        self,
        run_dir: Path,
        columns: Sequence[str],
        after_step: int = 0,
        loggers: Sequence[str] = ("tensorboard",),
        options: JsonObject | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._columns = list(columns)
        kept = [row for row in read_metrics(run_dir) if int(row["step"]) <= after_step]
        self._write(kept)
        self._loggers = RunLoggers(loggers, run_dir, columns, options or {}, after_step)

    def add(self, step: int, values: Mapping[str, float | None]) -> None:
        """Write one row; a value of None leaves its cell empty."""
        known = {name: value for name, value in values.items() if value is not None}
        cells = {"step": str(step)} | {name: f"{value:.6g}" for name, value in known.items()}
        with (self._run_dir / "metrics.csv").open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns, restval="", lineterminator="\n").writerow(cells)
        self._loggers.add(step, known)

    def add_last(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Add the final evaluation at the last step; it replaces that of a run which was resumed after its end."""
        rows = read_metrics(self._run_dir)
        self._write([row for row in rows if not (int(row["step"]) == step and any(row.get(name) for name in metrics))])
        self.add(step, metrics)

    def close(self, ending: Ending = "finished") -> None:
        """Finish the loggers."""
        self._loggers.close(ending)

    def _write(self, rows: Sequence[Mapping[str, str]]) -> None:
        cells = ([row.get(name, "") for name in self._columns] for row in rows)
        write_csv(self._run_dir / "metrics.csv", [self._columns, *cells])


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Close it after the block, with how the block ended."""
    try:
        yield recorder
    except BaseException as error:
        recorder.close(ending_of(error))
        raise
    recorder.close()


def ending_of(error: BaseException) -> Ending:
    """How a run has ended that raised this."""
    return "stopped" if isinstance(error, TrainingStopped | KeyboardInterrupt) else "failed"


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
