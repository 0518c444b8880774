"""The size in an annotation file is compared with that of the image, turned as its EXIF orientation says."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemlp.data.checks import check_files
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.objects import DetectionDataset
from cyclemlp.errors import DataError


def write_image(path: Path, orientation: int = 1, suffix_size: tuple[int, int] = (30, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.new("RGB", suffix_size).save(path, exif=tags)


def coco(root: Path, size: tuple[int, int], orientation: int = 1, suffix: str = "jpg") -> Path:
    """Stored as 30x20, annotated as (width, height) = `size`."""
    for split in ("train", "val"):
        write_image(root / split / f"a.{suffix}", orientation)
        image = {"id": 1, "file_name": f"a.{suffix}", "width": size[0], "height": size[1]}
        objects = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 5]}]
        content = {"images": [image], "annotations": objects, "categories": [{"id": 1, "name": "boat"}]}
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


def voc(root: Path, size: tuple[int, int], orientation: int = 1, suffix: str = "jpg") -> Path:
    box = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>10</xmax><ymax>8</ymax></bndbox>"
    noted = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    for split in ("train", "val"):
        write_image(root / split / f"a.{suffix}", orientation)
        text = f"<annotation>{noted}<object><name>boat</name>{box}</object></annotation>"
        (root / split / "a.xml").write_text(text)
    return root


@pytest.mark.parametrize("write", [coco, voc])
@pytest.mark.parametrize(
    ("size", "orientation", "message"),
    [
        ((20, 30), 1, "is 30x20 (width x height), its annotation says 20x30 with width and height swapped; correct"),
        ((30, 20), 6, "is 20x30 (width x height) turned by its EXIF orientation, its annotation says 30x20, as stored"),
        ((30, 20), 5, "is 20x30 (width x height) turned by its EXIF orientation, its annotation says 30x20, as stored"),
        ((31, 20), 1, "is 30x20 (width x height), its annotation says 31x20; correct the annotation or the image"),
        ((31, 20), 8, "is 20x30 (width x height), its annotation says 31x20; correct the annotation or the image"),
    ],
)
def test_another_size_is_named_before_training_and_by_the_survey(
    tmp_path: Path, write: Callable[..., Path], size: tuple[int, int], orientation: int, message: str
) -> None:
    root = write(tmp_path, size, orientation)
    for suffix in ("jpg", "png"):
        root = write(tmp_path / suffix, size, orientation, suffix)
        report = inspect_dataset(root)
        assert [(p.split, message in str(p)) for p in report.problems] == [("train", True), ("val", True)]
        dataset = find_dataset(root, DetectionDataset)
        for splits in (("train", "val"), ("val",)):
            with pytest.raises(DataError) as caught:
                check_files(dataset, splits)
            assert message in str(caught.value)
        with pytest.raises(DataError) as caught:
            dataset.splits["train"].read(0)
        assert message in str(caught.value)


@pytest.mark.parametrize("write", [coco, voc])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_size_of_the_turned_image_is_right(tmp_path: Path, write: Callable[..., Path], suffix: str) -> None:
    report = inspect_dataset(write(tmp_path, (20, 30), 6, suffix))
    assert not report.problems
    assert not [note for note in report.notes if "EXIF" in note.what]


def test_a_turn_within_the_size_is_noted(tmp_path: Path) -> None:
    report = inspect_dataset(coco(tmp_path, (30, 20), 3))
    notes = [str(note) for note in report.notes if note.split == "train"]
    what = (
        "a.jpg is turned by 180 degrees or mirrored by the EXIF orientation; objects are taken to be annotated on the"
    )
    assert what in notes[0]
    assert not report.problems


def test_a_split_that_is_evaluated_alone_is_compared(tmp_path: Path) -> None:
    root = coco(tmp_path, (30, 20))
    content = json.loads((root / "val.json").read_text())
    content["images"][0].update(width=20, height=30)
    (root / "val.json").write_text(json.dumps(content))
    dataset = find_dataset(root, DetectionDataset)
    check_files(dataset, ("train",))
    with pytest.raises(DataError, match=r"val/a.jpg is 30x20"):
        check_files(dataset, ("val",))
    assert np.array_equal(dataset.splits["train"].read(0)[0].shape, (20, 30, 3))


def yolo(root: Path, orientation: int) -> Path:
    for split in ("train", "val"):
        write_image(root / f"images/{split}/a.jpg", orientation)
        (root / f"labels/{split}").mkdir(parents=True)
        (root / f"labels/{split}/a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "classes.txt").write_text("boat\n")
    return root


def test_a_quarter_turn_that_no_size_confirms_is_noted(tmp_path: Path) -> None:
    square = coco(tmp_path / "square", (20, 20), 6)
    for split in ("train", "val"):
        write_image(square / split / "a.jpg", 6, (20, 20))
    for root in (yolo(tmp_path / "yolo", 6), coco(tmp_path / "coco", (0, 0), 8), square):
        report = inspect_dataset(root)
        notes = "\n".join(str(note) for note in report.notes if note.split == "train")
        assert "a.jpg is turned by 90 or 180 degrees or mirrored by the EXIF orientation; objects are taken to" in notes
        assert not report.problems
    assert "EXIF" not in "\n".join(map(str, inspect_dataset(yolo(tmp_path / "upright", 1)).notes))
