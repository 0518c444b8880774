import logging
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemlp.data.formats.registry import find_dataset, format_of
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.objects import DetectionDataset
from cyclemlp.data.problems import Findings
from cyclemlp.errors import DataError

BOAT = "<object><name>boat</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>8</ymax></bndbox></object>"
BUOY = (
    "<object><name>buoy</name><difficult>1</difficult><part><bndbox/></part>"
    "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object>"
)
SIZE = "<size><width>30</width><height>20</height><depth>3</depth></size>"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30, 3), 120, np.uint8)).save(path)


def annotation(objects: str, size: str = SIZE) -> str:
    return f"<annotation>{size}{objects}</annotation>"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The archives' layout, with `a` for training and `b` for validation."""
    for name, split in (("a", "train"), ("b", "val")):
        write_image(tmp_path / f"JPEGImages/{name}.jpg")
        write(tmp_path / f"Annotations/{name}.xml", annotation(BOAT + BUOY))
        write(tmp_path / f"ImageSets/Main/{split}.txt", f"{name}\n")
    return tmp_path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Images and annotations side by side."""
    for split, name in (("train", "a"), ("val", "b")):
        write_image(tmp_path / split / f"{name}.jpg")
        write(tmp_path / split / f"{name}.xml", annotation(BOAT + BUOY))
    return tmp_path


def read(root: Path) -> Findings:
    findings = Findings()
    format_of(root, DetectionDataset).read(root, findings)
    return findings


def problems_of(root: Path) -> str:
    return "\n".join(map(str, read(root).problems))


def test_pixels_are_counted_from_one_and_difficult_objects_ignored(archive: Path) -> None:
    dataset = find_dataset(archive, DetectionDataset)
    assert dataset.classes == ("boat", "buoy")
    assert list(dataset.splits) == ["train", "val"]
    split = dataset.splits["val"]
    assert split.images == (archive / "JPEGImages/b.jpg",)
    record = split.records[0]
    assert record.boxes_xyxy.tolist() == [[2, 3, 12, 8], [0, 0, 30, 20]]
    assert (record.labels.tolist(), record.crowd.tolist()) == ([0, 1], [False, True])
    assert (record.size, record.areas.tolist()) == ((20, 30), [50, 600])
    assert not dataset.has_masks


@pytest.mark.parametrize(
    ("images", "annotations"),
    [
        ("{}", "{}"),
        ("{}/images", "{}/annotations"),
        ("{}/JPEGImages", "{}/Annotations"),
        ("images/{}", "annotations/{}"),
    ],
)
@pytest.mark.parametrize("val", ["val", "valid"])
def test_folders_of_their_own_for_each_split(tmp_path: Path, images: str, annotations: str, val: str) -> None:
    for split in ("train", val):
        write_image(tmp_path / images.format(split) / "a.b.jpg")
        write(tmp_path / annotations.format(split) / "a.b.xml", annotation(BOAT, size=""))
    dataset = find_dataset(tmp_path, DetectionDataset)
    assert dataset.splits["val"].images == (tmp_path / images.format(val) / "a.b.jpg",)
    assert dataset.splits["val"].records[0].size == (20, 30)  # from the header
    assert inspect_dataset(tmp_path).format == "voc"


def test_names_in_lists_may_have_suffixes_and_further_columns(archive: Path) -> None:
    write(archive / "ImageSets/Main/test.txt", "a.jpg\n\nb  1\n")
    assert [path.name for path in find_dataset(archive, DetectionDataset).splits["test"].images] == ["a.jpg", "b.jpg"]


def test_classes_may_be_listed(archive: Path) -> None:
    write(archive / "classes.txt", "buoy\nboat\nraft\n")
    dataset = find_dataset(archive, DetectionDataset)
    assert dataset.classes == ("buoy", "boat", "raft")
    assert dataset.splits["train"].records[0].labels.tolist() == [1, 0]
    write(archive / "classes.txt", "boat\nboat\n")
    assert "classes.txt has 'boat' more than once; give each class a name of its own" in problems_of(archive)


def test_boxes_are_checked_as_in_every_format(folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    beyond = BOAT.replace("<xmax>12<", "<xmax>50<")
    from_zero = BOAT.replace("<xmin>3<", "<xmin>0<")  # one pixel beyond the edge is no mistake
    path = write(folders / "train/a.xml", annotation(beyond + BOAT.replace(">12<", ">nan<") + from_zero))
    write(folders / "val/b.xml", annotation(BOAT))
    with caplog.at_level(logging.WARNING):
        record = find_dataset(folders, DetectionDataset).splits["train"].records[0]
    assert record.boxes_xyxy.tolist() == [[2, 3, 30, 8], [0, 3, 12, 8]]
    assert "2 boxes are cut to the image or left out" in caplog.text
    flaws = list(map(str, read(folders).flaws))
    assert flaws == [
        f"{path} object 1 (boat) has the box (2, 3, 50, 8), partly outside the image of 30x20;"
        " the box is cut to the image; correct or remove it",
        f"{path} object 2 (boat) has the box (2, 3, nan, 8), which is not a box;"
        " the object is left out; correct or remove it",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "a.xml is not XML (no element found: line 1, column 12); replace it"),
        (
            '<!DOCTYPE a [<!ENTITY b "ha">]><annotation>&b;</annotation>',
            "a.xml has a DOCTYPE, which is not read; write plain XML in UTF-8",
        ),
        ("<html/>", "a.xml begins with <html>; write VOC's <annotation>"),
        (annotation("<object/>"), "a.xml object 1 has no <name>; name its class"),
        (
            annotation("<object><name>boat</name><bndbox><xmin>x</xmin><ymin>2</ymin></bndbox></object>"),
            "a.xml object 1 (boat) has the bndbox x, 2, nothing, nothing; write numbers as xmin, ymin, xmax, ymax",
        ),
        (annotation(""), "has no objects to learn from; annotate some images"),
    ],
)
def test_wrong_annotations(folders: Path, text: str, message: str) -> None:
    write(folders / "train/a.xml", text)
    assert message in problems_of(folders)


def test_an_unknown_encoding(folders: Path) -> None:
    write(folders / "train/a.xml", '<?xml version="1.0" encoding="klingon"?><annotation/>')
    assert "a.xml" in problems_of(folders)


def test_a_class_that_training_does_not_have(folders: Path) -> None:
    write(folders / "val/b.xml", annotation(BOAT.replace("boat", "boot")))
    fix = "correct it, annotate some in train, or list all classes in classes.txt. Did you mean 'boat'?"
    assert f"b.xml object 1 (boot) is of a class that train does not have; {fix}" in problems_of(folders)


def test_files_without_their_partner(folders: Path) -> None:
    write_image(folders / "train/c.png")
    write_image(folders / "train/a.png")
    write(folders / "val/d.xml", annotation(BOAT))
    found = problems_of(folders)
    fix = "add it (without <object>, if there is nothing to find) or remove the image"
    assert f"train/c.xml is missing, so c.png has no annotation; {fix}" in found
    assert "train/a.jpg shares its name with another image; rename one of them" in found
    assert f"val/d.xml has no image; add the image to {folders / 'val'} or remove the file" in found


def test_wrong_lists(archive: Path) -> None:
    lists = archive / "ImageSets/Main"
    write(lists / "train.txt", "a\na\nghost\n")
    write(lists / "val.txt", "\n")
    found = problems_of(archive)
    assert "train.txt lists a 2 times; keep one of the lines" in found
    assert f"lists ghost, which has no image; add the image to {archive / 'JPEGImages'} or remove the line" in found
    assert "val.txt lists no images; write the name of an image on each line" in found


def test_missing_lists_and_folders(archive: Path, tmp_path: Path) -> None:
    lists = archive / "ImageSets/Main"
    (lists / "train.txt").rename(lists / "trainval.txt")
    (lists / "val.txt").rename(lists / "test.txt")
    found = problems_of(archive)
    assert "train.txt is missing; take the lines of trainval.txt that val.txt does not have" in found
    assert (
        "val.txt is missing; give --val-share 0.2 to validate on a fifth of the training images, or copy test.txt"
        in found
    )
    (lists / "trainval.txt").unlink()
    assert "train.txt is missing; write the names of its images there, one a line" in problems_of(archive)


def test_a_missing_folder(folders: Path) -> None:
    (folders / "val").rename(folders / "other")
    assert f"{folders / 'val'} is missing; give --val-share 0.2 to validate" in problems_of(folders)


def test_a_damaged_image_without_a_noted_size(folders: Path) -> None:
    write(folders / "train/a.xml", annotation(BOAT, size=""))
    (folders / "train/a.jpg").write_bytes(b"not an image")
    assert "train/a.jpg is not an image in a known format" in problems_of(folders)


def test_a_folder_above_is_distinguished_from_a_folder_of_anything(archive: Path, tmp_path: Path) -> None:
    year = tmp_path.parent / f"{tmp_path.name}-kit"
    (year / "VOCdevkit").mkdir(parents=True)
    archive.rename(year / "VOCdevkit/VOC2007")
    with pytest.raises(DataError, match=r"is not a data set with boxes, but .*VOCdevkit/VOC2007 is: give that folder"):
        find_dataset(year, DetectionDataset)


def test_an_annotation_of_another_image_by_its_filename(folders: Path) -> None:
    for name in "cd":
        write_image(folders / f"train/{name}.jpg")
        write(folders / f"train/{name}.xml", annotation(BOAT, f"<filename>{name}.png</filename>{SIZE}"))
    assert read(folders).notes == []
    write(folders / "train/d.xml", annotation(BOAT, f"<filename>C:\\photos\\c.jpg</filename>{SIZE}"))
    (note,) = read(folders).notes
    what = "d.xml has another image of the data as its filename (C:\\\\photos\\\\c.jpg); it is read for the image"
    assert what in str(note)


def test_a_name_in_two_unicode_forms_is_one_class(folders: Path) -> None:
    """As files of macOS and of other systems have it: it was two classes, of which val lacked one."""
    decomposed = unicodedata.normalize("NFD", "bou\u00e9e")
    write(folders / "train/a.xml", annotation(BOAT.replace("boat", decomposed)))
    write(folders / "val/b.xml", annotation(BOAT.replace("boat", "bou\u00e9e")))
    dataset = find_dataset(folders, DetectionDataset)
    assert dataset.classes == ("bou\u00e9e",)
    write(folders / "classes.txt", decomposed)
    assert find_dataset(folders, DetectionDataset).splits["val"].records[0].labels.tolist() == [0]
