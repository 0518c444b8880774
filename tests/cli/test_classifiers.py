"""`eval` and `predict` of classifiers, as a user types them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from predictions import classified

from cyclemlp.cli import main
from cyclemlp.data.images import image_size
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard, build_model, save_model

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = tuple("abcdefg")  # more than five, so that there is a top-5


def write_images(folder: Path, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def write_model(folder: Path, model: str = "cyclemlp_nano") -> Path:
    torch.manual_seed(0)
    card = ModelCard(task="classification", model=model, head="linear", classes=CLASSES, image_size=32, crop_pct=0.875)
    save_model(folder, build_model(card), card)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight validation images in six of the classes, training images in all."""
    root = tmp_path_factory.mktemp("data")
    for number, name in enumerate(CLASSES):
        write_images(root / "train" / name, 1, number)
        if number:
            write_images(root / "val" / name, 1 + (number < 3), 10 + number)
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_model(tmp_path_factory.mktemp("run"))
    (folder / "config.yaml").write_text(json.dumps({"data": str(data)}))
    return folder


def answer(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    with pytest.raises(SystemExit) as left:
        main([*map(str, arguments), "--json"])
    assert left.value.code == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def text(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> list[str]:
    with pytest.raises(SystemExit) as left:
        main([*map(str, arguments)])
    assert left.value.code == 0
    return capsys.readouterr().out.splitlines()


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as left:
        main([*map(str, arguments)])
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_scores_are_those_of_single_predictions(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = answer(capsys, "eval", run, "--out", tmp_path / "out")
    predictor = Predictor.load(run)
    images = sorted((data / "val").rglob("*.png"))
    found = {path: classified(predictor.predict(path)) for path in images}
    right = [path for path in images if found[path].label == path.parent.name]
    near = [path for path in images if path.parent.name in found[path].top()]
    assert (report["task"], report["images"], report["crop"]) == ("classification", 8, 0.875)
    assert report["metrics"]["top1"] == len(right) / 8
    assert report["metrics"]["top5"] == len(near) / 8
    assert report["metrics"]["accuracy"]["a"] is None
    rows = list(csv.reader(Path(report["confusion"]).read_text().splitlines()))
    assert sum(int(cell) for row in rows[1:] for cell in row[1:]) == 8
    wrong = list(csv.DictReader(Path(report["wrong"]).read_text().splitlines()))
    assert {row["image"] for row in wrong} == {str(path) for path in images if path not in right}
    assert [row["probability"] for row in wrong] == sorted((row["probability"] for row in wrong), reverse=True)
    assert image_size(Path(report["confusion_picture"]))[0] > 300
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == report


def test_table_names_classes_and_confusions(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    title, seen, *rows = text(capsys, "eval", run)
    assert title == f"cyclemlp_nano on 8 images of {data}, split val"
    assert seen == "images of 32 pixels, crop 0.875"
    assert [row.split()[0] for row in rows[:10]] == ["class", *CLASSES, "top-1", "top-5"]
    assert rows[1].endswith("absent")
    assert " predicted as " in rows[10]


def test_another_crop_and_size_show_other_parts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = answer(capsys, "eval", run, "--crop", "0.5", "--image-size", "48")
    assert (report["crop"], report["image_size"]) == (0.5, 48)


def test_classes_are_matched_by_name(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with a part of the classes, without splits, gives the same answers for its images."""
    for seed, name in enumerate(("e", "c")):
        write_images(tmp_path / "some" / name, 3, seed)
    report = answer(capsys, "eval", run, "--data", tmp_path / "some", "--split", "all")
    assert report["images"] == 6
    assert {name for name, value in report["metrics"]["accuracy"].items() if value is not None} == {"c", "e"}


def test_refusals(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "val" / "bb", 1, 0)
    write_images(tmp_path / "val" / "a", 1, 0)
    cases: list[tuple[list[str | Path], str]] = [
        (["--crop", "1.5"], "--crop 1.5 is not allowed: above 0 to 1; 0.875 is the authors'"),
        (["--image-size", "0"], "--image-size 0 is not allowed: 1 or more"),
        (["--split", "valid"], "has no split 'valid'; it has train, val, all. Did you mean 'val'?"),
        (["--data", tmp_path], "bb is not a class of the model, which knows 7 (a, b, c, d, e, f, ...)."),
        (["--data", tmp_path / "nowhere"], "nowhere is missing; give a folder with"),
        (["--out", data / "val" / "b" / "0.png"], "is a file: give a folder"),
    ]
    for arguments, words in cases:
        assert words in refusal(capsys, "eval", run, *arguments), arguments


def test_network_for_one_size(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_model(tmp_path / "mixer", "mixer_s32_224")
    message = refusal(capsys, "eval", folder, "--data", data, "--image-size", "64")
    assert "'mixer_s32_224' was built for images of 32 pixels and takes no others" in message
    assert answer(capsys, "eval", folder, "--data", data, "--image-size", "32")["images"] == 8


def test_predictions_as_table_json_and_drawings(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    report = answer(capsys, "predict", run, data / "val" / "b", "--out", out)
    expected = classified(Predictor.load(run).predict(data / "val" / "b" / "0.png"))
    entry = report["images"][0]
    assert (entry["label"], entry["size"]) == (expected.label, {"height": 40, "width": 50})
    assert entry["top5"] == expected.top()
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert [Path(row["image"]).name for row in rows] == ["0.png", "1.png"]
    assert rows[0]["label"] == expected.label
    assert float(rows[0]["probability"]) == pytest.approx(expected.probabilities.max(), abs=1e-6)
    assert rows[0]["label_5"] == list(expected.top())[4]
    assert json.loads((out / "predictions.json").read_text())["images"] == report["images"]
    assert {path.name for path in out.iterdir()} == {
        "predictions.csv",
        "predictions.json",
        "0_label.png",
        "1_label.png",
    }


def test_predictions_as_text_without_drawings(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = data / "val" / "b" / "0.png"
    (line,) = text(capsys, "predict", run, image, "--out", tmp_path / "out", "--no-pictures")
    name, share = next(iter(classified(Predictor.load(run).predict(image)).top().items()))
    assert line.startswith(f"{image}: {name} {100 * share:.1f} %, ")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.csv", "predictions.json"}
