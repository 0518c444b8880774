"""A choice of classes holds from the first step to the last score: in training, the card, eval and a resumed run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import command, refused
from mask_folders import write_mask_folder
from PIL import Image

import cyclemlp
from cyclemlp.data.objects import ANY_CLASS, Record
from cyclemlp.models.cyclemlp import SIZES, CycleMLPSizes
from cyclemlp.tasks.card import read_card
from cyclemlp.tasks.detection.decoding import Detections
from cyclemlp.tasks.detection.metrics import DetectionCounts

QUICK = ["--batch-size", "2", "--workers", "0", "--evaluations", "1", "--device", "cpu", "--json"]
COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}


@pytest.fixture(autouse=True)
def one_block_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "cyclemlp_nano", CycleMLPSizes((16, 24, 32, 40), (1, 1, 1, 1), (2, 2, 2, 2)))


def trained(capsys: pytest.CaptureFixture[str], task: str, data: Path, out: Path, *options: object) -> Any:
    """The metrics of a run of two steps."""
    assert command("train", task, "--data", data, "--out", out, "--steps", "2", *QUICK, *options) == 0
    return json.loads(capsys.readouterr().out)["metrics"]


def scored(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    assert command("eval", *arguments, "--json", "--device", "cpu") == 0
    return json.loads(capsys.readouterr().out)["metrics"]


def test_segmentation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_mask_folder(tmp_path / "data", train=2, val=1), tmp_path / "run"
    metrics = trained(
        capsys, "segmentation", data, out, "--classes", "blue", "--ignore-classes", "red", "--crop-size", 32
    )
    card = read_card(out)
    assert (card.classes, card.data_classes) == (("background", "blue"), ("red", "green", "blue"))
    assert list(metrics["IoU"]) == ["background", "blue"]
    assert scored(capsys, out) == metrics
    predictor = cyclemlp.Predictor.load(out)
    assert predictor.card.classes == ("background", "blue")
    mask = np.asarray(Image.open(data / "masks/val/0.png"))
    result: Any = predictor.predict(data / "images/val/0.png")
    counted = mask > 0  # red is ignored
    expected = ((result.mask == mask // 2) & counted).sum() / counted.sum()
    assert metrics["pixel_accuracy"] == pytest.approx(expected, abs=1e-6)
    # Masks that --prepare wrote with the chosen classes, and masks without names.
    chosen = ["--classes", "blue", "--ignore-classes", "red", "--prepare", tmp_path / "own"]
    assert command("data", data, *chosen) == 0
    capsys.readouterr()
    assert scored(capsys, out, "--data", tmp_path / "own") == metrics
    (data / "classes.txt").unlink()
    assert scored(capsys, out, "--data", data) == metrics
    (data / "classes.txt").write_text("red\ngreen\nviolet\n")
    assert "but the model was trained on 3 classes (red, green, blue)" in refused(capsys, "eval", out)


def test_another_choice_does_not_continue_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_mask_folder(tmp_path / "data", train=2, val=1), tmp_path / "run"
    trained(capsys, "segmentation", data, out, "--classes", "blue", "green", "--crop-size", 32)
    further = ["train", "segmentation", "--resume", "--out", out]
    message = refused(capsys, *further, "--classes", "blue")
    assert "--classes blue cannot be changed within a run" in message
    assert "--merge x=red,green cannot be changed" in refused(capsys, *further, "--merge", "x=red,green")
    assert command(*further, "--steps", "3", "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["metrics"]["IoU"]) == ["background", "green", "blue"]


def write_colours(root: Path) -> Path:
    for split in ("train", "val"):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for number in range(2):
                image = Image.new("RGB", (40, 40), tuple(each + number + 9 * (split == "val") for each in colour))
                image.save(root / split / name / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("options", "classes", "images"),
    [
        (["--classes", "red", "blue"], ("blue", "red"), 4),
        (["--ignore-classes", "red"], ("blue", "green"), 4),
        (["--merge", "warm=red,green"], ("blue", "warm"), 6),
    ],
)
def test_classification(
    options: list[str], classes: tuple[str, ...], images: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_colours(tmp_path / "data"), tmp_path / "run"
    metrics = trained(capsys, "classification", data, out, "--image-size", 32, *options)
    assert read_card(out).classes == classes
    assert tuple(metrics["accuracy"]) == classes
    assert command("eval", out, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["metrics"]) == (images, metrics)


def test_classification_on_folders_of_the_chosen_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out, own = write_colours(tmp_path / "data"), tmp_path / "run", tmp_path / "own"
    trained(capsys, "classification", data, out, "--image-size", 32, "--merge", "warm=red,green")
    for name, whole in (("red", "warm"), ("blue", "blue")):
        (own / "val").mkdir(parents=True, exist_ok=True)
        (data / "val" / name).rename(own / "val" / whole)
    assert list(scored(capsys, out, "--data", own)["accuracy"]) == ["blue", "warm"]
    (own / "val/blue").rename(own / "val/pink")
    assert "pink is not a class of the model" in refused(capsys, "eval", out, "--data", own)


def test_classes_without_training_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_colours(tmp_path / "data")
    message = refused(capsys, "train", "classification", "--data", data, "--classes", "red", "purple")
    assert "--classes: 'purple' is not a class of the data, which have 3 (blue, green, red)." in message


def write_squares(root: Path) -> Path:
    """Two squares and a bar an image, outlined."""
    random = np.random.default_rng(0)
    places = {1: (4, 6, 16), 2: (34, 30, 20), 3: (40, 4, 14)}
    for split in ("train", "val"):
        images: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        (root / split).mkdir(parents=True)
        for number in (1, 2):
            pixels = random.integers(0, 120, (64, 64, 3), dtype=np.uint8)
            for category, (left, top, edge) in places.items():
                pixels[top : top + edge, left : left + edge] += 100
                corners = [left, top, left + edge, top, left + edge, top + edge, left, top + edge]
                place = {"bbox": [left, top, edge, edge], "segmentation": [corners], "area": edge**2, "iscrowd": 0}
                objects.append({"id": len(objects) + 1, "image_id": number, "category_id": category, **place})
            Image.fromarray(pixels).save(root / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        categories = [{"id": 1, "name": "small"}, {"id": 2, "name": "large"}, {"id": 3, "name": "bar"}]
        content = {"images": images, "annotations": objects, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(("task", "score"), [("detection", "AP"), ("instance-segmentation", "mask_AP")])
def test_detectors(task: str, score: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out, results = write_squares(tmp_path / "data"), tmp_path / "run", tmp_path / "results"
    chosen = ["--classes", "large", "--ignore-classes", "small", "--crop-size", 64, "--head-width", 16]
    metrics = trained(capsys, task, data, out, *chosen)
    card = read_card(out)
    assert (card.classes, card.category_ids) == (("large",), (2,))
    assert list(metrics[score]) == ["large"]
    assert scored(capsys, out, "--out", results) == metrics
    labels = json.loads((results / "coco_labels.json").read_text())
    kept = [(each["category_id"], each["iscrowd"]) for each in labels["annotations"]]
    assert kept == [(2, 1), (2, 0)] * 2  # what is small is a region to ignore of each class


BOXES = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)


def of_labels(labels: list[int], crowd: list[bool]) -> Record:
    areas, outlines = np.array([100.0, 100.0]), (None, None)
    return Record(1, (40, 40), BOXES, np.array(labels), np.array(crowd), areas, outlines)


def test_what_is_found_on_an_ignored_object_is_no_mistake() -> None:
    """Of whichever class; on one that is left out it is."""
    found = Detections(BOXES, np.array([0.5, 0.9], np.float32), np.array([1, 1]))
    precision = {}
    for what, record in (
        ("ignored", of_labels([1, ANY_CLASS], [False, True])),
        ("left out", of_labels([1, 1], [False, False]).select(np.array([True, False]))),
    ):
        counts = DetectionCounts(masks=False)
        counts.add(record, found, 2)
        precision[what] = counts.metrics(("a", "b"))["AP"]["b"]
    assert precision == {"ignored": pytest.approx(1.0), "left out": pytest.approx(0.5, abs=0.01)}


def test_nothing_is_learnt_on_an_ignored_object(tmp_path: Path) -> None:
    from cyclemlp.data.augmentation import BoxAugmentation
    from cyclemlp.data.box_transforms import BoxTrainTransform

    torch.manual_seed(0)
    plain = BoxAugmentation(crop_size=None, scale=(1.0, 1.0), flip=0.0)
    _, target = BoxTrainTransform(plain)(np.zeros((40, 40, 3), np.uint8), of_labels([1, ANY_CLASS], [False, True]))
    assert target["labels"].tolist() == [1]
    assert target["ignored"].tolist() == BOXES[1:].tolist()


def test_python(tmp_path: Path) -> None:
    with pytest.raises(cyclemlp.ConfigError, match="'purple' is not a class of the data"):
        cyclemlp.train(
            "segmentation", data=write_mask_folder(tmp_path / "d", 2, 1), classes=["purple"], out=tmp_path / "r"
        )
