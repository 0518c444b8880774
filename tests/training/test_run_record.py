"""run.json: written while a run trains, appended by a resumed one, and what a resumed run may not change."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mask_folders import write_mask_folder
from PIL import Image
from training_runs import train_classification, train_detection, train_segmentation

from cyclemlp.data.fingerprint import data_digest, labels_digest
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.masks import MaskDataset
from cyclemlp.errors import ConfigError
from cyclemlp.machine import own_seconds
from cyclemlp.tasks.classification.config import ClassificationConfig, ClassificationOptimisation
from cyclemlp.tasks.detection.config import DetectionConfig, DetectionOptimisation
from cyclemlp.tasks.options import Length, Machine
from cyclemlp.tasks.segmentation.config import SegmentationConfig
from cyclemlp.training.run_record import read_record, training_sessions

Configured = Callable[..., SegmentationConfig]
CPU = Machine(device="cpu", workers=0)


def record_of(run_dir: Path) -> dict[str, Any]:
    found = read_record(run_dir)
    assert found is not None
    return found


@pytest.mark.usefixtures("small_networks")
def test_a_run_says_how_it_was_made_and_a_resumed_one_appends(configured: Configured) -> None:
    config = configured(steps=2, machine=Machine(device="cpu", workers=0, seed=3))
    run_dir = train_segmentation(config)
    record = record_of(run_dir)
    (session,) = record["sessions"]
    assert record["classes"] == ["red", "green", "blue"]
    assert session["command"].startswith("cyclemlp train segmentation --data ")
    assert "--seed 3" in session["command"]
    assert {"torch", "cyclemlp", "numpy"} <= set(session["versions"])
    assert (session["seed"], session["threads"], session["from_step"], session["step"]) == (3, 1, 0, 2)
    assert session["processor"]
    assert isinstance(session["dirty"], bool)
    assert session["foreign_load"] is None or session["foreign_load"] >= 0
    train_segmentation(replace(config, resume=True, length=Length(steps=4)))
    train_segmentation(replace(config, resume=True, length=Length(steps=4)))  # has no step left to take
    record = record_of(run_dir)
    assert [each["step"] for each in record["sessions"]] == [2, 4, 4]
    assert record["sessions"][0] == session
    assert [each["step"] for each in training_sessions(record)] == [2, 4]


@pytest.mark.usefixtures("small_networks")
def test_an_interrupted_run_has_its_session(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cyclemlp.training.run.fit", fail)
    config = configured(steps=2)
    with pytest.raises(KeyboardInterrupt):
        train_segmentation(config)
    assert record_of(config.run_dir)["sessions"][0]["step"] == 0


def test_own_seconds_grow_and_the_digest_follows_the_data_and_not_its_place(tmp_path: Path) -> None:
    first, second = (write_mask_folder(tmp_path / name, train=2, val=1, edge=16) for name in "ab")
    digests = [labels_digest(find_dataset(root, MaskDataset), ("train", "val")) for root in (first, second)]
    assert digests[0] == digests[1]
    before = data_digest(find_dataset(second, MaskDataset), ("train",))
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(second / "images/train/0.png")
    assert data_digest(find_dataset(second, MaskDataset), ("train",)) != before
    Image.fromarray(np.ones((16, 16), np.uint8)).save(second / "masks/train/0.png")
    assert labels_digest(find_dataset(second, MaskDataset), ("train", "val")) != digests[0]
    assert own_seconds() > 0


def write_classes(root: Path, names: tuple[str, ...]) -> Path:
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def rename(root: Path, old: str, new: str) -> None:
    for split in ("train", "val"):
        (root / split / old).rename(root / split / new)


@pytest.fixture(scope="module")
def labels_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and a finished classification `run` on it."""
    root = tmp_path_factory.mktemp("labels")
    train_classification(labels_config(root, write_classes(root / "data", ("cat", "dog"))))
    return root


def labels_config(root: Path, data: Path, resume: bool = False, steps: int = 1) -> ClassificationConfig:
    return ClassificationConfig(
        data=data,
        out=root / "run",
        model="resnet18",
        image_size=32,
        resume=resume,
        length=Length(steps=steps),
        optimisation=ClassificationOptimisation(batch_size=2),
        machine=CPU,
    )


def change_labels(kind: str, data: Path) -> None:
    if kind == "renamed":
        rename(data, "cat", "house cat")
    elif kind == "same place":
        rename(data, "cat", "cow")
    elif kind == "added":
        for split in ("train", "val"):
            (data / split / "emu").mkdir()
            (data / split / "cat" / "0.png").rename(data / split / "emu" / "0.png")
    elif kind == "removed":
        for split in ("train", "val"):
            shutil.rmtree(data / split / "cat")
        write_classes(data, ("eel",))
    else:
        (data / "train/cat/0.png").rename(data / "train/dog/7.png")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("renamed", r"'cat' is gone, 'house cat' is new"),
        ("same place", r"2 then, 2 now; 'cat' is gone, 'cow' is new"),
        ("added", r"2 then, 3 now; 'emu' is new"),
        ("removed", r"'cat' is gone, 'eel' is new"),
        ("moved", r"the labels are not those of the run"),
    ],
)
@pytest.mark.parametrize("recorded", [True, False])
def test_other_classes_are_refused(labels_run: Path, tmp_path: Path, kind: str, words: str, recorded: bool) -> None:
    root = tmp_path / "copy"
    shutil.copytree(labels_run, root)
    if not recorded:  # as of an earlier version, whose card names the classes
        (root / "run/run.json").unlink()
        if kind == "moved":
            return
    before = {path: path.read_bytes() for path in (root / "run").rglob("*") if path.is_file()}
    change_labels(kind, root / "data")
    with pytest.raises(ConfigError, match=rf"--resume .*{words}.* --init {root}/run and another --out"):
        train_classification(labels_config(root, root / "data", resume=True, steps=2))
    assert before == {path: path.read_bytes() for path in (root / "run").rglob("*") if path.is_file()}


def test_the_same_data_elsewhere_is_the_same(labels_run: Path, tmp_path: Path) -> None:
    shutil.copytree(labels_run, tmp_path / "copy")
    train_classification(labels_config(tmp_path / "copy", tmp_path / "copy/data", resume=True, steps=2))


@pytest.mark.usefixtures("small_networks")
def test_masks_with_names_in_another_order_are_refused(configured: Configured, tmp_path: Path) -> None:
    data = write_mask_folder(tmp_path / "data", train=2, val=1)
    config = replace(configured(steps=1), data=data)
    train_segmentation(config)
    (data / "classes.txt").write_text("green\nred\nblue\n")
    with pytest.raises(ConfigError, match=r"in another order \(red, green, blue in the run, green, red, blue now\)"):
        train_segmentation(replace(config, resume=True, length=Length(steps=2)))


def write_boxes(root: Path, names: dict[int, str]) -> Path:
    boxes = [{"id": 1, "image_id": 1, "category_id": number, "bbox": [4, 4, 30, 30]} for number in names]
    boxes = [{**box, "id": i + 1, "area": 900, "iscrowd": 0} for i, box in enumerate(boxes)]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
        "annotations": boxes,
        "categories": [{"id": number, "name": name} for number, name in names.items()],
    }
    for split in ("train", "val"):
        (root / split).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(root / split / "a.png")
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


def boxes_config(root: Path) -> DetectionConfig:
    return DetectionConfig(
        data=root / "data",
        out=root / "run",
        model="resnet18",
        head_width=16,
        length=Length(steps=1),
        optimisation=DetectionOptimisation(batch_size=1),
        machine=CPU,
    )


@pytest.fixture(scope="module")
def boxes_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and a finished detection `run` on it."""
    root = tmp_path_factory.mktemp("boxes")
    write_boxes(root / "data", {3: "cat", 7: "dog"})
    train_detection(boxes_config(root))
    return root


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({3: "dog", 7: "cat"}, r"in another order \(cat, dog in the run, dog, cat now\)"),
        ({1: "cat", 2: "dog"}, r"the categories have other ids than in the run"),
        ({3: "cat", 7: "hen"}, r"'dog' is gone, 'hen' is new"),
    ],
)
def test_other_categories_are_refused(boxes_run: Path, tmp_path: Path, names: dict[int, str], words: str) -> None:
    root = tmp_path / "copy"
    shutil.copytree(boxes_run, root)
    write_boxes(root / "data", names)
    with pytest.raises(ConfigError, match=words):
        train_detection(replace(boxes_config(root), resume=True, length=Length(steps=2)))
