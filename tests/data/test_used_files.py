"""Every file in a data folder is used or counted with its reason; names are the same text in either Unicode form."""

import json
import logging
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cyclemlp.data.datasets import ClassifiedDataset
from cyclemlp.data.formats.class_folders import read_split
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.inference.entries import Entries
from cyclemlp.inference.inputs import find_inputs
from cyclemlp.inference.predict_files import Predictions

WriteDataset = Callable[..., Path]
COMPOSED = unicodedata.normalize("NFC", "Grün é")
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


def save(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (value, 0, 0)).save(path)
    return path


def pets(root: Path, names: tuple[str, str] = ("cat", "dog"), in_val: tuple[str, str] = ("cat", "dog")) -> Path:
    for split, classes, start in (("train", names, 0), ("val", in_val, 100)):
        for number, name in enumerate(classes):
            for i in range(3):
                save(root / split / name / f"{i}.png", start + 10 * number + i)
    return root


def clutter(folder: Path) -> None:
    """What operating systems leave behind."""
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._a.png"):
        (folder / name).write_bytes(b"x")
    save(folder / "__MACOSX/._b.png")
    (folder / "__MACOSX/c.png").write_bytes(b"x")


def remarks(root: Path) -> str:
    report = inspect_dataset(root)
    assert report.problems == ()
    return "\n".join(map(str, report.notes))


@pytest.mark.parametrize(
    ("names", "in_val"), [((COMPOSED, "b"), (DECOMPOSED, "b")), ((DECOMPOSED, "b"), (COMPOSED, "b"))]
)
def test_class_folders_in_either_form(tmp_path: Path, names: tuple[str, str], in_val: tuple[str, str]) -> None:
    pets(tmp_path, names, in_val)
    dataset = find_dataset(tmp_path, ClassifiedDataset)
    assert sorted(dataset.splits["val"].labels) == [0, 0, 0, 1, 1, 1]
    assert remarks(tmp_path) == ""
    assert read_split(tmp_path, "val", dataset.classes).labels == dataset.splits["val"].labels
    assert len(read_split(tmp_path / "val", "all", dataset.classes).labels) == 6


def test_two_class_folders_of_one_text(tmp_path: Path) -> None:
    pets(tmp_path, (COMPOSED, DECOMPOSED), (COMPOSED, DECOMPOSED))
    problems = list(map(str, inspect_dataset(tmp_path).problems))
    assert any("has the name of another class folder, with its accents in another Unicode form" in p for p in problems)


@pytest.mark.parametrize("pair", [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_masks_in_either_form(write_dataset: WriteDataset, pair: tuple[str, str]) -> None:
    root = write_dataset()
    (root / "images/train/a.png").rename(root / f"images/train/{pair[0]}.png")
    (root / "masks/train/a.png").rename(root / f"masks/train/{pair[1]}.png")
    assert remarks(root) == ""
    assert inspect_dataset(root).splits["train"].images == 2


def test_two_masks_of_one_image(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    (root / "masks/train/a_mask.png").write_bytes((root / "masks/train/a.png").read_bytes())
    (problem,) = inspect_dataset(root).problems
    assert problem.what == "belongs to the same image as a.png"


def test_what_operating_systems_leave_behind_is_no_data(tmp_path: Path, write_dataset: WriteDataset) -> None:
    root = pets(tmp_path / "pets")
    for folder in (root, root / "train", root / "train/cat", root / "val"):
        clutter(folder)
    report = inspect_dataset(root)
    assert (report.problems, report.dataset.classes) == ((), ("cat", "dog"))
    assert not any("MACOSX" in str(note) for note in report.notes)
    lakes = write_dataset()
    for folder in (lakes, lakes / "images", lakes / "masks", lakes / "images/train", lakes / "masks/train"):
        clutter(folder)
    assert inspect_dataset(lakes).problems == ()
    assert list(inspect_dataset(lakes).splits) == ["train", "val"]


def test_a_single_folder_of_classes_with_clutter(tmp_path: Path) -> None:
    pets(tmp_path)
    clutter(tmp_path / "train")
    assert inspect_dataset(tmp_path / "train").dataset.classes == ("cat", "dog")


def test_images_below_class_folders_are_counted(tmp_path: Path) -> None:
    pets(tmp_path)
    for i in range(4):
        save(tmp_path / f"train/dog/second batch/{i}.png", 50 + i)
    save(tmp_path / "unlabelled/x.png", 77)
    note = remarks(tmp_path)
    assert "has 5 files that are not used: 5 in places where no images are looked for (such as train/dog/second" in note


def test_links_that_lead_nowhere_and_hidden_images_are_counted(tmp_path: Path, write_dataset: WriteDataset) -> None:
    for root, folder in ((pets(tmp_path / "pets"), "train/cat"), (write_dataset(), "images/train")):
        (root / folder / "gone.png").symlink_to(root / "nowhere.png")
        save(root / folder / ".hidden.png", 99)
        note = remarks(root)
        assert "has 2 files that are not used: " in note
        assert f"1 by a link that leads nowhere ({folder}/gone.png)" in note
        assert f"1 with a hidden name ({folder}/.hidden.png)" in note


def test_links_that_lead_to_images_are_followed(tmp_path: Path) -> None:
    root = pets(tmp_path / "pets")
    (root / "train/cat/more.png").symlink_to(save(tmp_path / "elsewhere/a.png", 60))
    save(tmp_path / "birds/b.png", 61)
    for split in ("train", "val"):
        (root / split / "emu").symlink_to(tmp_path / "birds")
    dataset = inspect_dataset(root).dataset
    assert dataset.classes == ("cat", "dog", "emu")
    assert len(dataset.splits["train"].images) == 8


def test_images_out_of_place_among_masks(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    save(root / "images/extra/a.png")
    save(root / "images/train/below/b.png")
    (root / "images/train/below/c.HEIC").touch()
    note = remarks(root)
    assert "has 3 files that are not used: 2 in places where no images are looked for" in note
    assert "1 of kinds that are not read (images/train/below/c.HEIC)" in note


def test_an_evaluation_counts_what_its_split_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pets(tmp_path)
    save(tmp_path / "val/cat/more/1.png", 90)
    read_split(tmp_path, "val", ("cat", "dog"))
    assert "val has 1 file that is not used: 1 in places where no images are looked for (cat/more/1.png)" in caplog.text


def test_inputs_that_are_not_predicted_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "a.PNG")
    (tmp_path / "b.heic").touch()
    (tmp_path / "c.gif").touch()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    save(tmp_path / "more/d.png")
    clutter(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [path.name for path in find_inputs([tmp_path])] == ["a.PNG"]
    counted = (
        "2 with other suffixes (such as b.heic), 1 by links that lead nowhere (gone.jpg), 1 that are folders (more)"
    )
    assert f"not used in {tmp_path}: {counted}" in caplog.text


def test_all_that_failed_are_named() -> None:
    failed = [{"image": f"in/i{number}.jpg", "error": f"in/i{number}.jpg is damaged"} for number in range(5)]
    with pytest.raises(Exception, match=r"is damaged; and 2 more: i3\.jpg, i4\.jpg"):
        Predictions("segmentation", images=Entries([{}]), failed=failed).raise_failures()


def yolo(root: Path) -> None:
    for split in ("train", "val"):
        save(root / f"images/{split}/a.png", len(split))
        (root / f"labels/{split}").mkdir(parents=True)
        (root / f"labels/{split}/a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "set").mkdir()
    (root / "set/val.txt").write_text("../images/val/a.png\n")
    (root / "data.yaml").write_text("train: images/train\nval: set/val.txt\nnames: [boat]\n")


def voc(root: Path) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>4</ymax></bndbox>"
    for split in ("train", "val"):
        save(root / split / "a.png", len(split))
        (root / split / "a.xml").write_text(f"<annotation><object><name>boat</name>{box}</object></annotation>")


def coco(root: Path) -> None:
    item = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 3]}
    for split in ("train", "val"):
        save(root / split / "a.png", len(split))
        content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [item]}
        (root / f"{split}.json").write_text(json.dumps(content | {"categories": [{"id": 1, "name": "boat"}]}))


@pytest.mark.parametrize("write", [yolo, voc, coco])
def test_images_out_of_place_among_boxes(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    assert remarks(tmp_path) == ""
    save(tmp_path / "images/holdout/b.png", 9)
    save(tmp_path / "more/c.png", 8)
    note = remarks(tmp_path)
    assert (
        "has 2 files that are not used: 2 in places where no images are looked for (such as images/holdout/b." in note
    )
