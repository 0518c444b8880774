import csv
import json
import logging
import os
from functools import partial
from pathlib import Path

import command_line
import numpy as np
import pytest
import torch
from PIL import Image

from cyclemlp.errors import ConfigError, DataError
from cyclemlp.inference.inputs import find_inputs, plan
from cyclemlp.tasks.card import ModelCard, build_model, save_model

command = partial(command_line.command, "predict")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    card = ModelCard("classification", "cyclemlp_nano", "linear", ("cat", "dog"), image_size=32, crop_pct=1.0)
    save_model(folder, build_model(card), card)
    return folder


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Class folders, two of whose images have one name."""
    folder = tmp_path / "animals"
    for place in ("cat/1.png", "dog/1.png", "dog/small/2.png", "3.png"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), len(place), dtype=np.uint8)).save(folder / place)
    return folder


def found_in(folder: Path, out: Path | None = None) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_inputs([folder], recursive=True, out=out)]


def note(folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    """What is said of a folder that is read with all in it."""
    with caplog.at_level(logging.INFO):
        find_inputs([folder], recursive=True)
    return caplog.text


ALL = ["3.png", "cat/1.png", "dog/1.png", "dog/small/2.png"]


def test_results_lie_as_the_images_do(
    classifier: Path, animals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command(classifier, animals, "--recursive", "--out", out, "--json") == 0
    entries = json.loads(capsys.readouterr().out)["images"]
    assert [entry["image"] for entry in entries] == [str(animals / name) for name in ALL]
    drawings = ["3_label.png", "cat/1_label.png", "dog/1_label.png", "dog/small/2_label.png"]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")) == drawings
    assert [entry["picture"] for entry in entries] == [str(out / name) for name in drawings]
    with (out / "predictions.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [str(animals / name) for name in ALL]


def test_interrupted_command_keeps_what_is_done(
    classifier: Path, animals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, damaged = tmp_path / "out", animals / "dog/1.png"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:20])
    assert command(classifier, animals, "--recursive", "--out", out) == 3
    before = (out / "cat/1_label.png").stat().st_mtime_ns
    damaged.write_bytes(content)
    (out / "cat/.1_label.part-abcdefgh.png").touch()  # of a killed process
    assert command(classifier, animals, "--recursive", "--out", out, "--resume") == 0
    capsys.readouterr()
    assert (out / "cat/1_label.png").stat().st_mtime_ns == before
    assert sorted(path.name for path in (out / "cat").iterdir()) == ["1_label.png"]


def test_refusal_names_the_option(animals: Path, caplog: pytest.LogCaptureFixture) -> None:
    (animals / "3.png").unlink()
    with pytest.raises(DataError, match=r"directly in it.*--recursive reads the folders in it \(such as cat\)"):
        find_inputs([animals])
    (animals / "cat/1.png").rename(animals / "3.png")
    with caplog.at_level(logging.INFO):
        assert list(find_inputs([animals])) == [animals / "3.png"]
    assert "2 that are folders (such as cat); --recursive reads the folders, too" in caplog.text


def test_folders_without_images(animals: Path) -> None:
    for name in ALL:
        (animals / name).rename((animals / name).with_suffix(".txt"))
    with pytest.raises(
        DataError, match=r"in it or in a folder below it.*not used: 4 with other suffixes \(such as 3.txt\)"
    ):
        find_inputs([animals], recursive=True)


def test_option_without_a_folder(animals: Path) -> None:
    with pytest.raises(ConfigError, match="--recursive is for folders, and no input is one: leave it out"):
        find_inputs([animals / "3.png"], recursive=True)


def test_what_is_not_used_is_counted(animals: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in (".cache/a.png", "@eaDir/b.png", "dog/.hidden.png", "dog/labels.csv"):
        (animals / name).parent.mkdir(exist_ok=True)
        (animals / name).touch()
    (animals / "gone.png").symlink_to(animals / "nowhere")
    (animals / "dog/.DS_Store").touch()
    os.mkfifo(animals / "pipe.png")
    counted = (
        "1 with other suffixes (dog/labels.csv), 1 with hidden names (dog/.hidden.png)"
        ", 1 by links that lead nowhere (gone.png), 1 that are neither files nor folders (pipe.png)"
        ", 2 that are hidden folders or folders of the system (such as .cache)"
    )
    assert f"note: not used in {animals}: {counted}\n" in note(animals, caplog)
    assert found_in(animals) == ALL


def test_links_that_loop_end(animals: Path, caplog: pytest.LogCaptureFixture) -> None:
    (animals / "cat/around").symlink_to(animals)
    (animals / "cat/itself").symlink_to(animals / "cat/itself")
    (animals / "dog/above").symlink_to(animals.parent)
    (animals / "again").symlink_to(animals / "dog")
    text = note(animals, caplog)
    assert "2 by links to folders that they lie in (such as cat/around)" in text
    assert "1 by links to folders that are read anyway (again)" in text
    assert "1 by links that lead nowhere (cat/itself)" in text
    assert found_in(animals) == ALL


def test_folders_elsewhere_are_read_through_links(animals: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(animals)
    (tmp_path / "own").mkdir()
    (tmp_path / "own/far").symlink_to(animals)
    assert found_in(tmp_path / "own") == [f"far/{name}" for name in ALL]
    assert found_in(tmp_path / "linked") == ALL


def test_file_in_two_folders_is_told(animals: Path, caplog: pytest.LogCaptureFixture) -> None:
    (animals / "cat/same.png").symlink_to(animals / "cat/1.png")
    assert "note: each file is predicted once: 1 are given again" in note(animals, caplog)
    assert found_in(animals) == ALL


def test_results_are_no_inputs(animals: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = animals / "out"
    out.mkdir()
    (out / "3_label.png").write_bytes((animals / "3.png").read_bytes())
    with caplog.at_level(logging.INFO):
        assert found_in(animals, out) == ALL
    assert "1 that is the folder of the results (out)" in caplog.text
    with pytest.raises(ConfigError, match=r"--out .* is read by --recursive: choose another folder for the results"):
        find_inputs([animals], recursive=True, out=animals)


def test_folders_with_images_of_one_name(animals: Path, tmp_path: Path) -> None:
    (tmp_path / "more/cat").mkdir(parents=True)
    (tmp_path / "more/cat/1.png").write_bytes((animals / "cat/1.png").read_bytes())
    jobs = plan(find_inputs([animals, tmp_path / "more"], recursive=True), Path("out"), {"mask": "_mask.png"}, {})
    names = [job.files["mask"].as_posix() for job in jobs]
    assert names == [f"out/{name}_mask.png" for name in ("3", "cat/1", "dog/1", "dog/small/2", "cat/1-2")]
