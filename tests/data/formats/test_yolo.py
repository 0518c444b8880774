import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemlp.data.formats.registry import find_dataset, format_of
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.objects import DetectionDataset, masks_of
from cyclemlp.data.problems import Findings
from cyclemlp.errors import DataError

BOX = "1 0.5 0.5 0.2 0.4\n"
TRIANGLE = "0 0.1 0.1 0.5 0.1 0.5 0.6\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30, 3), 120, np.uint8)).save(path)


def write_split(root: Path, images: str, labels: str, text: str = BOX) -> None:
    write_image(root / images / "a.jpg")
    write(root / labels / "a.txt", text)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """images/{train,val} with labels/{train,val} and classes.txt."""
    for split in ("train", "val"):
        write_split(tmp_path, f"images/{split}", f"labels/{split}")
    write(tmp_path / "classes.txt", "buoy\nboat\n")
    return tmp_path


def read(root: Path) -> Findings:
    findings = Findings()
    format_of(root, DetectionDataset).read(root, findings)
    return findings


def problems_of(root: Path) -> str:
    return "\n".join(map(str, read(root).problems))


def test_boxes_become_pixels(plain: Path) -> None:
    write_image(plain / "images/train/empty.jpg")  # no label file: no objects
    dataset = find_dataset(plain, DetectionDataset)
    assert dataset.classes == ("buoy", "boat")
    train = dataset.splits["train"]
    assert [path.name for path in train.images] == ["a.jpg", "empty.jpg"]
    assert train.records[0].boxes_xyxy.tolist() == [[12, 6, 18, 14]]
    assert train.records[0].labels.tolist() == [1]
    assert len(train.records[1].labels) == 0
    assert not dataset.has_masks
    assert inspect_dataset(plain).format == "yolo"
    assert inspect_dataset(plain).problems == ()
    notes = "\n".join(map(str, inspect_dataset(plain).notes))
    assert (
        "images/train has 1 of 2 images without a label file (such as empty.jpg), which counts as no objects" in notes
    )
    write(plain / "labels/train/empty.txt", "")
    assert "without a label file" not in "\n".join(map(str, inspect_dataset(plain).notes))


def test_outlines_have_masks_boxes_and_areas(plain: Path) -> None:
    for split in ("train", "val"):
        write(plain / f"labels/{split}/a.txt", TRIANGLE)
    dataset = find_dataset(plain, DetectionDataset)
    assert dataset.has_masks
    record = dataset.splits["train"].records[0]
    np.testing.assert_allclose(record.boxes_xyxy, [[3, 2, 15, 12]], atol=1e-5)
    assert record.areas.tolist() == pytest.approx([60])  # half of 12 x 10
    assert masks_of(record).sum() == pytest.approx(60, abs=8)


@pytest.mark.parametrize("names", ["[buoy, boat]", "{0: buoy, 1: boat}"])
@pytest.mark.parametrize(
    ("images", "labels", "written"),
    [
        ("images/{}", "labels/{}", "images/{}"),
        ("{}/images", "{}/labels", "../{}/images"),  # as Roboflow exports
        ("{}/images/deep", "{}/labels/deep", "{}/images"),
        ("{}", "{}", "{}"),
    ],
)
def test_described_folders(tmp_path: Path, names: str, images: str, labels: str, written: str) -> None:
    for split in ("train", "valid"):
        write_split(tmp_path, images.format(split), labels.format(split))
    text = (
        f"path: elsewhere\ntrain: {written.format('train')}\nval: [{written.format('valid')}]\nnames: {names}\nnc: 2\n"
    )
    write(tmp_path / "data.yaml", text)
    dataset = find_dataset(tmp_path, DetectionDataset)
    assert dataset.classes == ("buoy", "boat")
    assert dataset.splits["val"].images == (tmp_path / images.format("valid") / "a.jpg",)
    assert dataset.splits["val"].records[0].labels.tolist() == [1]


@pytest.mark.parametrize("pattern", ["{}/{}", "{1}/{0}"])
def test_other_names_of_the_splits(tmp_path: Path, pattern: str) -> None:
    for split in ("Train", "Validation", "TEST"):
        write_split(tmp_path, pattern.format("images", split), pattern.format("labels", split))
    write(tmp_path / "classes.txt", "buoy\nboat\n")
    splits = find_dataset(tmp_path, DetectionDataset).splits
    assert {name: len(split.records[0].labels) for name, split in splits.items()} == {"train": 1, "val": 1, "test": 1}


def test_lists_of_images_and_a_path(tmp_path: Path) -> None:
    write_split(tmp_path, "set/images", "set/labels")
    write(tmp_path / "set/train.txt", "./images/a.jpg\n")
    write(tmp_path / "lakes.yaml", "path: set\ntrain: train.txt\nval: train.txt\nnames: [a, b]\n")
    dataset = find_dataset(tmp_path, DetectionDataset)
    assert [len(split.records[0].labels) for split in dataset.splits.values()] == [1, 1]
    write(tmp_path / "set/train.txt", "\n./images/b.jpg\n")
    assert "train.txt line 2 names ./images/b.jpg, which is missing; add the image or remove" in problems_of(tmp_path)


@pytest.mark.parametrize("place", ["labels", "labels/train"])
def test_class_names_next_to_the_labels(plain: Path, place: str) -> None:
    (plain / "classes.txt").rename(plain / place / "classes.txt")
    assert find_dataset(plain, DetectionDataset).classes == ("buoy", "boat")


def test_a_second_description_is_noted(plain: Path) -> None:
    write(plain / "data.yaml", "train: images/train\nval: images/val\nnames: [buoy, boat]\n")
    other = write(
        plain / "lakes.yaml",
        "path: /of/another/machine\ntrain: images/train\nval: images/val\nnames: {0: buoy, 1: boat}\n",
    )
    assert read(plain).notes == []
    write(other, "train: images/train\nval: images/train\nnames: [boat, buoy]\n")
    what = f"{other} is not read, and has other names, val than data.yaml, which is; remove the one that is not meant"
    assert [str(note) for note in read(plain).notes] == [what]


def test_numbers_in_the_list_of_classes(plain: Path) -> None:
    write(plain / "classes.txt", "1: buoy\n2: boat\n")
    assert "classes.txt numbers its classes 1, 2, but the first line is class 0" in problems_of(plain)


def test_lists_of_classes_that_contradict_each_other(plain: Path) -> None:
    write(plain / "labels/train/classes.txt", "Buoy\nboat\nship\n")
    assert problems_of(plain) == ""
    other = write(plain / "labels/val/classes.txt", "boat\nbuoy\n")
    fix = "make the two equal, and correct the labels of the one that is wrong"
    assert problems_of(plain) == f"{other} calls class 0 'boat', {plain / 'classes.txt'} calls it 'buoy'; {fix}"
    other.unlink()
    write(plain / "data.yaml", "train: images/train\nval: images/val\nnames: [boat, buoy]\n")
    assert f"{plain / 'classes.txt'} calls class 0 'buoy', {plain / 'data.yaml'} calls it 'boat'" in problems_of(plain)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "2 0.5 0.5 0.2 0.4",
            "has the class 2, the names go from 0 to 1; correct it, or name the class in classes.txt",
        ),
        ("0.5 0.5 0.5 0.2 0.4", "has the class 0.5; write a whole number from 0 on"),
        ("-1 0.5 0.5 0.2 0.4", "has the class -1; write a whole number from 0 on"),
        ("1 0.5 0.5", "has 3 values; write class cx cy width height, or class and three or more points x y"),
        ("1", "has 1 value; write class cx cy width height, or class and three or more points x y"),
        ("1 0.5 0.5 0.2 0.4 0.9", "has 6 values; write class cx cy width height, or class and three"),
        ("1 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "has 8 values; write class cx cy width height, or class and three"),
        ("1 12 0.5 0.2 0.4", "has the value 12, outside 0 to 1; write shares of the image's width and height"),
        ("1 -0.1 0.5 0.2 0.4", "has the value -0.1, outside 0 to 1; write shares of the image's width and height"),
        ("boat 0.5 0.5 0.2 0.4", "has 'boat', which is not a number; correct or remove the line"),
        ("1 nan 0.5 0.2 0.4", "has 'nan', which is not a finite number; correct or remove the line"),
    ],
)
def test_wrong_lines(plain: Path, line: str, message: str) -> None:
    path = write(plain / "labels/train/a.txt", f"{BOX}\n{line}\n")
    assert f"{path} line 3 {message}" in problems_of(plain)


def test_boxes_are_checked_as_in_every_format(plain: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(plain / "labels/train/a.txt", "0 0.9 0.5 0.4 0.4\n0 0.5 0.5 0 0.4\n1 1.004 0.5 0.01 0.01\n")
    with caplog.at_level(logging.WARNING):
        record = find_dataset(plain, DetectionDataset).splits["train"].records[0]
    np.testing.assert_allclose(record.boxes_xyxy[0], [21, 6, 30, 14], atol=1e-5)
    assert "cut to the image or left out" in caplog.text
    flaws = list(map(str, read(plain).flaws))
    assert f"{path} line 1 has the box (21, 6, 33, 14), partly outside the image of 30x20" in flaws[0]
    assert f"{path} line 2 has the box (15, 6, 15, 14) without area; the object is left out" in flaws[1]


def test_files_without_their_partner(plain: Path) -> None:
    write(plain / "labels/val/ghost.txt", BOX)
    write_image(plain / "images/train/a.png")
    write_image(plain / "images/train/b.png")
    found = problems_of(plain)
    assert "labels/val/ghost.txt has no image; add the image or remove the file" in found
    assert "images/train/a.jpg shares its name with another image; rename one of them" in found
    assert "labels/train/a.txt has no image" not in found


def test_a_split_without_labels_or_images(plain: Path) -> None:
    (plain / "labels/train/a.txt").unlink()
    (plain / "images/val/a.jpg").unlink()
    found = problems_of(plain)
    assert "labels/train has no label file for any image; put a.txt and the others there" in found
    assert "images/val has no images; put .jpg or .png files there" in found


def test_missing_parts_of_the_plain_layout(plain: Path) -> None:
    (plain / "labels/val").rename(plain / "labels/other")
    assert (
        f"{plain / 'labels/val'} is missing; give --val-share 0.2 to validate on a fifth of the training images"
        in problems_of(plain)
    )
    (plain / "classes.txt").unlink()
    assert "classes.txt is missing; name the classes there, one a line, from class 0 on" in problems_of(plain)


def test_a_damaged_image(plain: Path) -> None:
    (plain / "images/train/a.jpg").write_bytes(b"not an image")
    assert "images/train/a.jpg is not an image in a known format" in problems_of(plain)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [", "is not YAML (while parsing"),
        ("names: []", "has the names []; write a list of the classes' names"),
        ("names: boat", "has the names 'boat'; write a list of the classes' names"),
        ("names: [yes]", "has the class name True; write it as text in quotation marks"),
        ("names: {1: buoy, 2: boat}", "has names for the classes 1, 2; number them 0, 1, 2, ... without a gap"),
        ("names: [boat, boat]", "has 'boat' more than once; give each class a name of its own"),
        ("nc: 3\nnames: [buoy, boat]", "says nc: 3, but has 2 names; correct one of the two"),
        ("names: [buoy, boat]", "names no val images; add a line val: FOLDER"),
        (
            "val: ghost\nnames: [buoy, boat]",
            "names ghost for val, which is missing; correct it; paths begin at its own",
        ),
    ],
)
def test_wrong_descriptions(plain: Path, text: str, message: str) -> None:
    path = write(plain / "data.yaml", f"train: images/train\n{text}\n")
    assert f"{path} {message}" in problems_of(plain)


@pytest.mark.parametrize("place", ["@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", ".thumbnails/large/x.png"])
def test_thumbnails_in_folders_of_systems_are_no_images(plain: Path, place: str) -> None:
    """They had no label file, and trained as images without objects."""
    write_image(plain / "images/train" / place)
    write(plain / "labels/train/@eaDir/a.txt", BOX)
    assert find_dataset(plain, DetectionDataset).splits["train"].images == (plain / "images/train/a.jpg",)


def test_masks_are_no_labels_of_boxes(plain: Path) -> None:
    for split in ("train", "val"):
        (plain / f"labels/{split}/a.txt").unlink()
        Image.new("L", (30, 20)).save(plain / f"labels/{split}/a.png")
    with pytest.raises(DataError, match="is not a data set with boxes; expected COCO"):
        read(plain)
