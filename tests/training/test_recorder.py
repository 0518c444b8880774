from pathlib import Path

import pytest

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
