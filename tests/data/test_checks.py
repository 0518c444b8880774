"""What `cyclemlp data` finds stops training and evaluation before the first step, and is read once."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import command, refused
from mask_folders import write_mask_folder
from PIL import Image

from cyclemlp.data import checks
from cyclemlp.data.check_cache import checks_folder
from cyclemlp.data.checks import check_files
from cyclemlp.data.file_reports import TimeLimit
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.inspect import FilesReport, inspect_files
from cyclemlp.data.masks import MaskDataset
from cyclemlp.errors import DataError
from cyclemlp.inference.evaluate import evaluate_predictor
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard, build_model
from cyclemlp.tasks.options import EvaluationOptions

Reads = list[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CYCLEMLP_CACHE", str(tmp_path / "cache"))
    return write_mask_folder(tmp_path / "masks", train=3, val=2, edge=16)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """The splits that were read file by file."""
    found: Reads = []

    def counted(dataset: MaskDataset, limit: TimeLimit) -> FilesReport:
        found.append(" ".join(dataset.splits))
        return inspect_files(dataset, limit)

    monkeypatch.setattr(checks, "inspect_files", counted)
    return found


def change(path: Path, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    Image.fromarray(edit(np.asarray(Image.open(path)).copy())).save(path)


def check(folder: Path, *splits: str, seconds: float = 60) -> None:
    check_files(find_dataset(folder, MaskDataset), splits or ("train", "val"), seconds)


def test_training_is_refused_as_the_survey_says(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in folder.glob("masks/*/*.png"):
        change(path, lambda mask: np.where(mask, 255, 0).astype(np.uint8))
    line = refused(capsys, "train", "segmentation", "--data", folder, "--out", tmp_path / "run", "--steps", 1)
    assert f"{folder}/masks hold no class but 0" in line
    assert not (tmp_path / "run").exists()
    assert command("data", folder, "--json") == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert f"{problem['path']} {problem['what']}; {problem['fix']}" in line


def test_a_sound_folder_is_read_once_and_after_every_change(folder: Path, reads: Reads) -> None:
    check(folder)
    check(folder)
    assert reads == ["train val"]
    path = folder / "masks/val/1.png"
    before = path.stat()
    change(path, lambda mask: np.full_like(mask, 7))
    path.write_bytes(path.read_bytes().ljust(before.st_size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # of the same size and time as before
    with pytest.raises(DataError, match=r"masks/val/1.png holds the value 7, outside the 3 classes"):
        check(folder)
    with pytest.raises(DataError, match=r"holds the value 7"):
        check(folder)
    assert reads == ["train val"] * 2
    for entry in checks_folder().iterdir():
        entry.write_text("half an entr")
    with pytest.raises(DataError, match=r"holds the value 7"):
        check(folder)
    assert len(reads) == 3


def test_the_survey_pays_for_training(folder: Path, reads: Reads, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("data", folder) == 0
    check(folder)
    check(folder, "val")
    assert reads == []


def test_evaluation_checks_the_split_that_it_scores(folder: Path, reads: Reads) -> None:
    change(folder / "masks/train/0.png", lambda mask: np.full_like(mask, 7))
    card = ModelCard("segmentation", "cyclemlp_nano", "semantic-fpn", ("red", "green", "blue"), head_width=8)
    predictor = Predictor.of_model(build_model(card), card, "cpu")
    evaluate_predictor(predictor, folder, folder, "val", EvaluationOptions())
    assert reads == ["val"]
    with pytest.raises(DataError, match=r"masks/train/0.png holds the value 7"):
        evaluate_predictor(predictor, folder, folder, "train", EvaluationOptions())


def test_notes_are_logged_each_time(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "classes.txt").write_text("red\ngreen\nblue\nmauve\n")
    (folder / "images/train/scan.heic").touch()
    for _ in range(2):
        caplog.clear()
        check(folder)
        assert len(caplog.records) == 2
        assert "no pixels of mauve in train" in caplog.text
        assert "scan.heic is skipped" in caplog.text


def test_without_time_for_all_files_some_of_each_part_are_read(
    folder: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    check(folder, seconds=0)
    assert f"{folder} has 10 files, of which 4, spread evenly, were read before the first step" in caplog.text
    caplog.clear()
    assert command("data", folder) == 0
    check(folder, seconds=0)
    assert "spread evenly" not in caplog.text


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CYCLEMLP_CACHE", str(tmp_path / "file"))
    check(folder)
    assert "so the data is checked again next time" in caplog.text
