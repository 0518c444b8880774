"""Every way to a run's network brings back the run that a killed `--overwrite` has left set aside."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cyclemlp import Predictor
from cyclemlp.export import speed
from cyclemlp.tasks.aside import set_aside
from cyclemlp.tasks.card import ModelCard, build_model, load_model, read_card, save_model
from cyclemlp.tasks.classification.teacher import load_teacher

OPTIONS = "data: d\nmodel: m\nout: o\nbatch-size: 1\nevaluations: 1\n"
CARD = ModelCard("classification", "cyclemlp_nano", "linear", ("a", "b"), image_size=32, crop_pct=1.0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder in which the command that replaces it was killed before its first checkpoint."""
    run = tmp_path / "run"
    run.mkdir()
    torch.manual_seed(0)
    save_model(run, build_model(CARD), CARD)
    (run / "config.yaml").write_text(OPTIONS, encoding="utf-8")
    set_aside(run)
    for name in ("config.yaml", "metrics.csv"):
        (run / name).write_text(OPTIONS, encoding="utf-8")
    return run


def bench(run: Path) -> None:
    """What `cyclemlp bench` reads before it measures."""
    next(speed._subjects(str(run), 32, ["torch"], run.parent))


def teach(run: Path) -> None:
    load_teacher(str(run), CARD)


@pytest.mark.parametrize(
    "use", [load_model, Predictor.load, teach, bench], ids=["load", "predictor", "teacher", "bench"]
)
@pytest.mark.parametrize("name", ["", "model.safetensors"], ids=["folder", "file"])
def test_the_run_is_back(use: Callable[[Path], object], name: str, run: Path) -> None:
    use(run / name)
    assert {path.name for path in run.iterdir()} == {"config.yaml", "model.json", "model.safetensors", ".lock"}


def test_so_does_its_card(run: Path) -> None:
    assert read_card(run).classes == ("a", "b")
    assert not (run / "metrics.csv").exists()


def test_processes_that_help_the_first_one_leave_it_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one may be about to lock the folder."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(Exception, match=r"it has no model\.safetensors"):
        load_model(run)
    assert (run / ".replaced").is_dir()
