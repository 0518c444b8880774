"""`--overwrite`: until the new run has a checkpoint the old one is not lost, however the new one ends."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import command, refused
from mask_folders import write_mask_folder

from cyclemlp.training import loop

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ["--crop-size", "32", "--batch-size", "2", "--workers", "0", "--device", "cpu", "--log-every", "1"]
LONG = 100_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and a finished run on it."""
    root = tmp_path_factory.mktemp("made")
    write_mask_folder(root / "data", train=2, val=1)
    assert command("train", "segmentation", "--data", root / "data", "--out", root / "run", *SMALL, "--steps", 1) == 0
    return root


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run."""
    return shutil.copytree(made / "run", tmp_path / "run")


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def replacing(made: Path, run: Path, *options: object) -> list[str]:
    return [
        *map(str, ("train", "segmentation", "--data", made / "data", "--out", run, *SMALL, "--overwrite", *options))
    ]


def test_a_loss_that_is_not_finite_brings_the_old_run_back(
    made: Path, run: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before = content(run)
    words = refused(capsys, *replacing(made, run, "--lr", "1e30", "--steps", "9", "--evaluations", "1"))
    assert "is not finite" in words
    assert content(run) == before
    assert f"the run that was to be replaced is back in {run}" in caplog.text


def test_memory_that_runs_out_in_the_first_step_brings_the_old_run_back(
    made: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object) -> dict[str, torch.Tensor]:
        raise torch.OutOfMemoryError("out of memory")

    before = content(run)
    monkeypatch.setattr(loop, "accumulate_gradients", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        command(*replacing(made, run, "--steps", "2"))
    assert content(run) == before


def test_the_first_checkpoint_ends_the_old_run(
    made: Path, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual: Callable[..., Any] = loop.accumulate_gradients

    def fails_in_the_third_step(state: Any, batches: Any) -> Any:
        if state.step == 2:
            raise torch.OutOfMemoryError("out of memory")
        return usual(state, batches)

    monkeypatch.setattr(loop, "accumulate_gradients", fails_in_the_third_step)
    with pytest.raises(torch.OutOfMemoryError):
        command(*replacing(made, run, "--steps", "9", "--checkpoint-every", "2"))
    monkeypatch.undo()
    assert not list(run.glob(".repl*"))
    assert command("train", "segmentation", "--resume", run, "--steps", "3", "--json") == 0
    sessions = json.loads((run / "run.json").read_text(encoding="utf-8"))["sessions"]
    assert [each["from_step"] for each in sessions] == [0, 2]


def begun(arguments: list[str], run: Path) -> subprocess.Popen[str]:
    """The command, in a process of its own that has taken a step."""
    process = subprocess.Popen([sys.executable, "-m", "cyclemlp", *arguments], stderr=subprocess.PIPE, text=True)
    for _ in range(6000):
        options, metrics = run / "config.yaml", run / "metrics.csv"
        is_new = options.is_file() and yaml.safe_load(options.read_text(encoding="utf-8"))["steps"] == LONG
        if is_new and metrics.is_file() and metrics.read_text(encoding="utf-8").count("\n") > 1:
            return process
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"it took no step: {process.communicate()}")


@pytest.fixture(scope="module")
def killed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder in which a new run was killed before its first checkpoint."""
    run = shutil.copytree(made / "run", tmp_path_factory.mktemp("killed") / "run")
    process = begun(replacing(made, run, "--steps", LONG), run)
    process.kill()
    process.communicate()
    assert content(run) != content(made / "run")
    return run


@pytest.mark.parametrize("verb", ["predict", "eval", "resume", "refused", "replaced"])
def test_after_sigkill_the_next_command_has_the_old_run(
    verb: str, made: Path, killed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, old = shutil.copytree(killed, tmp_path / "run"), content(made / "run")
    out = tmp_path / "out"
    if verb == "resume":
        assert command("train", "segmentation", "--resume", run, "--steps", "2") == 0
        assert content(run)["metrics.csv"].startswith(old["metrics.csv"].splitlines(keepends=True)[0])
        assert json.loads((run / "run.json").read_text(encoding="utf-8"))["sessions"][1]["from_step"] == 1
        return
    if verb == "replaced":
        assert command(*replacing(made, run, "--steps", "1", "--seed", "1")) == 0
        assert not list(run.glob(".repl*"))
        assert content(run)["model.safetensors"] != old["model.safetensors"]
        return
    if verb == "refused":
        words = refused(capsys, "train", "segmentation", "--data", made / "data", "--out", run, *SMALL)
        assert "exists and is not empty" in words
    elif verb == "predict":
        assert command("predict", run, made / "data" / "images" / "val" / "0.png", "--out", out) == 0
    else:
        assert command("eval", run) == 0
    assert content(run) == old


def test_a_run_that_goes_on_is_left_alone_and_a_stop_brings_the_old_one_back(made: Path, run: Path) -> None:
    """A command for a folder in which a new run has no checkpoint yet does not disturb it."""
    before = content(run)
    process = begun(replacing(made, run, "--steps", LONG), run)
    assert command("predict", run, made / "data" / "images" / "val" / "0.png", "--out", run.parent / "out") == 2
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert f"{run} has the run again that was to be replaced" in words
    assert "--resume" not in words
    assert content(run) == before
