import errno
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.failing_disk import FailingDisk
from cyclemlp.training.recorder import Recorder, read_metrics

ODD = ["a\u2028b", "c\u0085d", "e\x0cf", "g;h", "\ufeffi", "j,k", 'l"m', "n\x1co"]


@pytest.mark.parametrize("name", ODD)
def test_names_of_classes_do_not_end_a_row(tmp_path: Path, name: str) -> None:
    """A run with such a class is recorded, read and continued."""
    column = f"IoU/{name}"
    recorder = Recorder(tmp_path, ["step", "loss", column])
    recorder.add(1, {"loss": 0.5, column: 0.25})
    recorder.add(2, {"loss": 0.4, column: 0.75})
    recorder.close()
    assert [row[column] for row in read_metrics(tmp_path)] == ["0.25", "0.75"]
    continued = Recorder(tmp_path, ["step", "loss", column], after_step=1)
    continued.close()
    assert [row["step"] for row in read_metrics(tmp_path)] == ["1"]


def test_a_row_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss\n1,0.5\n2,0.", encoding="utf-8")
    assert read_metrics(tmp_path) == [{"step": "1", "loss": "0.5"}]


HEAD = "step,seconds,loss"
DAMAGED = {
    "with a mark of byte order": (f"\ufeff{HEAD}\n1,2,0.5\n2,3,0.25\n".encode(), ["0.5", "0.25"]),
    "saved by a spreadsheet": (b"step;seconds;loss\r\n1;2;0,5\r\n2;3;0,25\r\n", ["0.5", "0.25"]),
    "zeros after a loss of power": (f"{HEAD}\n1,2,0.5\n".encode() + bytes(64) + b"\n2,3,0.25\n", ["0.5", "0.25"]),
    "not text": (f"{HEAD}\n1,2,0.5\n\xff\xfe\xfa\n2,3,\xff\n".encode("latin-1"), ["0.5", ""]),
    "rows of other lengths": (f"{HEAD}\n1\n2,3,0.25,7,8\n".encode(), ["", "0.25"]),
    "words for numbers": (f"{HEAD}\n1,2,0.5\n2,3,much\nthree,4,1\n".encode(), ["0.5", ""]),
    "another table": (b"name,size\na,1\n", []),
    "a quote without its end": (f'{HEAD}\n1,2,0.5\n2,3,"{"x" * 200_000}\n'.encode(), ["0.5"]),
    "empty": (b"", []),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_table_keeps_the_rows_that_can_be_read(name: str, tmp_path: Path) -> None:
    """A run that took days is continued, and ends, whatever was done to its table."""
    content, losses = DAMAGED[name]
    (tmp_path / "metrics.csv").write_bytes(content)
    assert [row["loss"] for row in read_metrics(tmp_path)] == losses
    continued = Recorder(tmp_path, ["step", "seconds", "loss"], after_step=2)
    continued.add(3, {"seconds": 4, "loss": 0.125})
    continued.add_last(3, {"loss": 0.1})
    continued.close()
    assert [row["loss"] for row in read_metrics(tmp_path)] == [*losses, "0.1"]


def test_tensorboard_shows_the_rows_and_not_those_before_a_continuation(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, ["step", "loss"])
    for step in (1, 2, 3):
        recorder.add(step, {"loss": step / 4, "score": None})
    recorder.close()
    continued = Recorder(tmp_path, ["step", "loss"], after_step=1)
    continued.add(2, {"loss": 5.0})
    continued.close()
    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    assert shown.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in shown.Scalars("loss")] == [(1, 0.25), (2, 5.0)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the disk that fails finds the names in /proc")
def test_each_write_of_the_table_that_fails_is_an_error(tmp_path: Path) -> None:
    operations = ["-"]
    while operations[-1]:
        folder = tmp_path / str(len(operations))
        folder.mkdir()
        disk = FailingDisk(folder, "full", len(operations))
        try:
            with disk.in_use(), closing(Recorder(folder, ["step", "loss"], loggers=())) as recorder:
                recorder.add(1, {"loss": 0.5})
        except OSError as error:
            as_expected = error.errno == errno.ENOSPC
        else:
            as_expected = not disk.met or disk.met.startswith("rename")  # which needs no space
        assert as_expected
        operations.append(disk.met)
    assert sum("metrics.csv" in each for each in operations) == 3  # renamed, opened, and a row
