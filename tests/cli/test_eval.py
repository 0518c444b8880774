import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import pytest
import torch
from PIL import Image

from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.masks import MaskDataset
from cyclemlp.inference.evaluate import Evaluator
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard, build_model, save_model

CLASSES = ("ocean", "land", "lake")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    card = ModelCard(task="segmentation", model="cyclemlp_nano", head="semantic-fpn", classes=CLASSES)
    save_model(folder, build_model(card), card)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    generator = np.random.default_rng(0)
    for split, count in {"train": 1, "val": 2}.items():
        for kind, shape in {"images": (40, 50, 3), "masks": (40, 50)}.items():
            (root / kind / split).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256 if kind == "images" else 3, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(root / kind / split / f"{i}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


@pytest.fixture
def run(model_folder: Path, data: Path, tmp_path: Path) -> Path:
    """A run folder whose config.yaml names the data."""
    folder = tmp_path / "run"
    folder.mkdir()
    for file in model_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.yaml").write_text(json.dumps({"data": str(data), "epochs": 3}))
    return folder


command = partial(command_line.command, "eval")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which it refuses its input."""
    return command_line.refused(capsys, "eval", *arguments)


def metrics_of(predictor: Predictor, data: Path) -> Mapping[str, Any]:
    evaluator = Evaluator(predictor.card, find_dataset(data, MaskDataset))
    return evaluator.count_all(predictor).metrics(predictor.card.classes)


def test_json_is_one_object_with_exact_scores(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(run, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    expected = metrics_of(Predictor.load(run), data)
    confusion = np.array(report.pop("confusion"))
    hits = np.diag(confusion)
    assert hits / (confusion.sum(0) + confusion.sum(1) - hits) == pytest.approx(list(expected["IoU"].values()))
    assert report == {
        "task": "segmentation",
        "data": str(data),
        "split": "val",
        "images": 2,
        "metrics": expected,
        "model": "cyclemlp_nano",
        "run": str(run),
    }
    assert report["metrics"]["IoU"].keys() == set(CLASSES)


def test_table_lines_up(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(run, "--split", "train") == 0
    title, *rows = capsys.readouterr().out.splitlines()
    assert title == f"cyclemlp_nano on 1 image of {data}, split train"
    assert [row.split("  ")[0].strip() for row in rows] == ["class", *CLASSES, "mean", "pixel accuracy"]
    assert len({len(row) for row in rows}) == 1


def test_other_data_for_a_weight_file(model_folder: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(model_folder / "model.safetensors", "--data", data, "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2


def test_run_without_config_needs_data(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").unlink()
    error = refused(capsys, run)
    assert "it has no config.yaml" in error
    assert "name the data folder with --data" in error


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{}", "names no data"), ("[]", "holds no options"), ("data: 3", "names no data"), ("", "holds no options")],
)
def test_config_without_data(run: Path, content: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").write_text(content)
    error = refused(capsys, run)
    assert f"config.yaml {reason}" in error
    assert "folder with --data" in error


def test_broken_config(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").write_text("data: [")
    assert "config.yaml is not readable" in refused(capsys, run)


def test_other_classes(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "classes.txt").write_text("sky\nground\nsea\n")
    message = refused(capsys, run)
    assert f"{data} has 3 classes (sky, ground, sea), but the model was trained on 3 classes (ocean," in message


def test_data_without_names_is_compared_by_number(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (data / "classes.txt").unlink()
    assert command(run, "--json") == 0
    assert f"note: {data} names no classes: its 0, 1, ... count as ocean, " in caplog.text
    capsys.readouterr()
    Image.fromarray(np.full((40, 50), 7, dtype=np.uint8)).save(data / "masks" / "val" / "0.png")
    assert "has 8 classes (class0, class1" in refused(capsys, run)


def test_unknown_split(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, run, "--split", "vall")
    assert "has no split 'vall'; it has train, val. Did you mean 'val'?" in message


def test_missing_data(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere" in refused(capsys, run, "--data", tmp_path / "nowhere")


def test_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not a run folder" in refused(capsys, tmp_path)


def test_misspelt_option(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--split" in refused(capsys, run, "--spilt", "val")


def test_option_of_another_task(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, run, "--crop", "0.9")
    assert "--crop is not for segmentation models: leave it out" in message


def test_several_scales_and_flips(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(run, "--scales", "1", "1.5", "--flip", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    predictor = Predictor.load(run).with_views((1.0, 1.5), flip=True)
    assert report["metrics"] == metrics_of(predictor, data)
    assert (report["scales"], report["flip"]) == ([1.0, 1.5], True)
    assert command(run, "--flip") == 0
    assert capsys.readouterr().out.splitlines()[1] == "averaged over scales 1, each mirrored as well"


def test_wrong_scales(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--scales 0 1: different factors from 0.1 to 8, such as 0.5" in refused(capsys, run, "--scales", "0", "1")


def test_scores_are_written_down(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(run, "--json", "--out", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == json.loads(capsys.readouterr().out)
