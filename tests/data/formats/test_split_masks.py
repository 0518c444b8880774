"""Masks by split are read as masks, and never taken for class folders."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemlp.data.datasets import ClassifiedDataset
from cyclemlp.data.formats.class_folders import is_folder_dataset
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.held_out import HoldOut
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.problems import DataRequest
from cyclemlp.errors import DataError

Write = Callable[[Path], Path]
SPLITS = {"train": 3, "valid": 2, "test": 1}
TABLE = "Pixel Value, Class\n0, background\n1, cat\n"


def pair(image: Path, mask: Path, value: int = 1) -> None:
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(list(bytes(image))).integers(0, 256, (4, 6, 3), np.uint8)).save(image)
    Image.fromarray((np.eye(4, 6) * value).astype(np.uint8)).save(mask)


def together(root: Path) -> Path:
    """As Roboflow exports it."""
    for split, count in SPLITS.items():
        for number in range(count):
            name = f"img{number}_jpg.rf.{number:08x}"
            pair(root / split / f"{name}.jpg", root / split / f"{name}_mask.png")
        (root / split / "_classes.csv").write_text(TABLE)
    return root


def inside(root: Path) -> Path:
    for split, count in SPLITS.items():
        for number in range(count):
            pair(root / split / f"images/{number}.jpg", root / split / f"masks/{number}.png")
    (root / "classes.txt").write_text("background\ncat\n")
    return root


def suffixed(root: Path) -> Path:
    """The usual layout, with endings."""
    for split, count in SPLITS.items():
        for number in range(count):
            pair(root / f"images/{split}/{number}.jpg", root / f"masks/{split}/{number}_label.PNG")
    (root / "classes.txt").write_text("background\ncat\n")
    return root


@pytest.mark.parametrize("write", [together, inside, suffixed])
def test_every_split_is_read(tmp_path: Path, write: Write) -> None:
    report = inspect_dataset(write(tmp_path))
    assert (report.format, report.problems, report.notes) == ("masks", (), ())
    assert report.dataset.classes == ("background", "cat")
    assert {name: split.images for name, split in report.splits.items()} == {"train": 3, "val": 2, "test": 1}
    assert report.splits["train"].of_class["cat"] == 12


@pytest.mark.parametrize("write", [together, inside, suffixed])
def test_they_are_no_class_folders(tmp_path: Path, write: Write) -> None:
    assert not is_folder_dataset(write(tmp_path))
    with pytest.raises(DataError, match="is not a data set with class labels; expected class folders"):
        find_dataset(tmp_path, ClassifiedDataset)


@pytest.mark.parametrize("write", [together, inside, suffixed])
@pytest.mark.parametrize("split", ["test", "val"])
def test_an_evaluation_needs_its_own_split_alone(tmp_path: Path, write: Write, split: str) -> None:
    write(tmp_path)
    folder = {"val": "valid"}.get(split, split)
    for other in set(SPLITS) - {folder}:
        for path in [path for path in tmp_path.rglob(other) if path.is_dir()]:
            shutil.rmtree(path)
    dataset = find_dataset(tmp_path, MaskDataset, DataRequest(split))
    assert len(dataset.splits[split].images) == SPLITS[folder]
    with pytest.raises(DataError, match=r"train(/images|/masks)? is missing"):
        find_dataset(tmp_path, MaskDataset)


@pytest.mark.parametrize("write", [together, inside, suffixed])
def test_the_split_that_is_asked_for_has_to_exist(tmp_path: Path, write: Write) -> None:
    write(tmp_path)
    for path in [path for path in tmp_path.rglob("valid") if path.is_dir()]:
        shutil.rmtree(path)
    with pytest.raises(DataError, match="is missing; put the images of the val split there, or evaluate another"):
        find_dataset(tmp_path, MaskDataset, DataRequest("val"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("Pixel Value, Class\n0, background\n2, cat\n", "does not name the values 0, 1, 2, ... in order"),
        ("Pixel Value, Class\n0, cat\n1, cat\n", "has 'cat' more than once"),
        ("Pixel Value, Class\n0, cat\n", "names 1 classes"),
        ("Pixel Value, Class\n0, background\n1, dog\n", "lists other classes than"),
    ],
)
def test_tables_of_classes(tmp_path: Path, table: str, message: str) -> None:
    (together(tmp_path) / "valid/_classes.csv").write_text(table)
    assert any(message in str(problem) for problem in inspect_dataset(tmp_path).problems)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert inspect_dataset(tmp_path).problems == ()


def test_files_without_their_partner(tmp_path: Path) -> None:
    together(tmp_path)
    next(tmp_path.glob("train/*_mask.png")).rename(tmp_path / "train/other_mask.png")
    problems = "\n".join(map(str, inspect_dataset(tmp_path).problems))
    assert "_mask.png or remove the image" in problems
    assert "other_mask.png has no image" in problems


@pytest.mark.parametrize("parts", [("images", "labels"), ("imgs", "masks"), ("image", "gt")])
@pytest.mark.parametrize("parent", ["", "train"])
def test_folders_of_images_and_masks_are_no_classes(tmp_path: Path, parts: tuple[str, str], parent: str) -> None:
    for number in range(3):
        pair(tmp_path / parent / parts[0] / f"{number}.png", tmp_path / parent / parts[1] / f"{number}.png")
    assert not is_folder_dataset(tmp_path)


def test_splits_alone_are_no_classes_but_a_train_may_be_one(tmp_path: Path) -> None:
    for name in ("train", "valid", "test"):
        pair(tmp_path / name / "a.jpg", tmp_path / name / "b.png")
    assert not is_folder_dataset(tmp_path)
    pair(tmp_path / "bus/a.jpg", tmp_path / "bus/b.png")
    assert is_folder_dataset(tmp_path)


NAMES = [("images", "labels"), ("img", "gt"), ("Image", "Mask"), ("imgs", "annotations")]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("by_split", [False, True])
def test_other_names_of_the_folders(tmp_path: Path, names: tuple[str, str], by_split: bool) -> None:
    for split in ("train", "val"):
        image, mask = (f"{split}/{name}" if by_split else f"{name}/{split}" for name in names)
        pair(tmp_path / image / "a.jpg", tmp_path / mask / "a.png")
    report = inspect_dataset(tmp_path)
    assert (report.format, report.problems) == ("masks", ())
    assert {name: split.images for name, split in report.splits.items()} == {"train": 1, "val": 1}


@pytest.mark.parametrize(
    "names", [("Train", "Val", "Test"), ("TRAIN", "VALID", "TEST"), ("training", "Validation", "testing")]
)
@pytest.mark.parametrize("by_split", [False, True])
@pytest.mark.parametrize("masks", ["masks", "labels"])
def test_other_names_of_the_splits(tmp_path: Path, names: tuple[str, ...], by_split: bool, masks: str) -> None:
    for name in names:
        image, mask = (f"{name}/{kind}" if by_split else f"{kind}/{name}" for kind in ("images", masks))
        pair(tmp_path / image / "a.jpg", tmp_path / mask / "a.png")
    report = inspect_dataset(tmp_path)
    assert (report.problems, report.notes) == ((), ())
    assert {name: split.images for name, split in report.splits.items()} == {"train": 1, "val": 1, "test": 1}
    with pytest.raises(DataError, match="has a validation split already: leave --val-share out"):
        find_dataset(tmp_path, MaskDataset, DataRequest(hold_out=HoldOut(0.5)))


def test_a_test_split_never_trains(tmp_path: Path) -> None:
    for name in ("training", "testing"):
        for number in range(4):
            pair(tmp_path / f"images/{name}/{number}.jpg", tmp_path / f"masks/{name}/{number}.png")
    splits = find_dataset(tmp_path, MaskDataset, DataRequest(hold_out=HoldOut(0.5))).splits
    assert {name: len(split.images) for name, split in splits.items()} == {"train": 2, "val": 2, "test": 4}
    assert {path.parent.name for name in ("train", "val") for path in splits[name].images} == {"training"}


def test_folders_of_labels_for_boxes_hold_no_masks(tmp_path: Path) -> None:
    for split in ("train", "val"):
        pair(tmp_path / f"images/{split}/a.jpg", tmp_path / "elsewhere.png")
        (tmp_path / f"labels/{split}").mkdir(parents=True)
        (tmp_path / f"labels/{split}/a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    assert inspect_dataset(tmp_path).format == "yolo"
