import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cyclemlp.data.file_reports import SplitReport
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.errors import DataError

WriteDataset = Callable[..., Path]


def test_counts_of_a_sound_data_set(write_dataset: WriteDataset) -> None:
    report = inspect_dataset(write_dataset())
    assert report.problems == ()
    assert report.dataset.classes == ("ground", "water")
    train = report.splits["train"]
    assert isinstance(train, SplitReport)
    assert (train.images, train.pixels) == (2, 2 * 32 * 48)
    assert train.of_class == {"ground": 2 * 22 * 48, "water": 2 * 8 * 48}
    assert train.ignored == 2 * 2 * 48
    assert list(report.splits) == ["train", "val"]


def test_classes_without_names_are_numbered(write_dataset: WriteDataset) -> None:
    assert inspect_dataset(write_dataset(classes=None)).dataset.classes == ("class0", "class1")


def test_every_problem_is_found_in_one_go(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    images, masks = root / "images/train", root / "masks/train"
    for name in "defghij":
        Image.new("RGB", (48, 32)).save(images / f"{name}.png")
        Image.new("L", (48, 32)).save(masks / f"{name}.png")
    (masks / "a.png").unlink()
    (images / "b.png").unlink()
    (images / "d.png").write_bytes(b"")
    (images / "e.png").write_bytes((images / "e.png").read_bytes()[:-20])  # sound header, cut pixels
    (images / "f.png").write_text("not an image")
    Image.new("L", (40, 32)).save(masks / "g.png")
    Image.new("L", (48, 32), 9).save(masks / "h.png")
    Image.new("RGB", (48, 32), (9, 0, 0)).save(masks / "i.png")
    (masks / "j.png").write_bytes((masks / "j.png").read_bytes()[:45])
    report = inspect_dataset(root)
    found = {str(problem.path.relative_to(root)): problem.what for problem in report.problems}
    assert {path: what.split(" (")[0] for path, what in found.items()} == {
        "images/train/a.png": "has no mask",
        "masks/train/b.png": "has no image",
        "images/train/d.png": "is empty",
        "images/train/e.png": "is damaged or incomplete",
        "images/train/f.png": "is not an image in a known format",
        "masks/train/g.png": "is 40x32",
        "masks/train/h.png": "holds the value 9, outside the 2 classes",
        "masks/train/i.png": "is an RGB image and no list says which colour is which class; it has 9 0 0",
        "masks/train/j.png": "is damaged or incomplete",
    }
    assert len(report.problems) == 9  # none twice, though header and pixels are looked at separately
    assert report.splits["train"].images == 8
    assert all(problem.split == "train" and problem.fix for problem in report.problems)


def test_images_that_are_only_unusual_are_not_a_problem(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    (root / "images/train/a.png").unlink()
    Image.new("CMYK", (48, 32)).save(root / "images/train/a.jpg")
    Image.fromarray(np.zeros((32, 48), np.uint16)).save(root / "images/train/b.png")
    Image.new("LA", (48, 32)).save(root / "images/val/c.png")
    assert inspect_dataset(root).problems == ()


def test_unusable_class_names_are_one_problem_among_others(write_dataset: WriteDataset) -> None:
    root = write_dataset(classes=("water", "water"))
    (root / "masks/val/c.png").unlink()
    assert [problem.what for problem in inspect_dataset(root).problems] == [
        "has 'water' more than once",
        "has no mask",
    ]


def test_missing_split_is_a_problem_and_the_rest_is_counted(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    (root / "images/val/c.png").unlink()
    (root / "images/val").rmdir()
    report = inspect_dataset(root)
    assert [problem.what for problem in report.problems] == ["is missing"]
    assert report.splits["train"].images == 2


def test_report_is_plain_json(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    (root / "images/val/c.png").write_bytes(b"")
    report = json.loads(json.dumps(inspect_dataset(root).to_dict()))
    assert report == {
        "data": str(root),
        "format": "masks",
        "classes": ["ground", "water"],
        "splits": {
            "train": {
                "images": 2,
                "pixels": 3072,
                "class_pixels": {"ground": 2112, "water": 768},
                "ignored_pixels": 192,
            },
            "val": {
                "images": 1,
                "pixels": 0,
                "class_pixels": {"ground": 1056, "water": 384},
                "ignored_pixels": 96,
            },
        },
        "notes": [],
        "problems": [
            {
                "path": str(root / "images/val/c.png"),
                "split": "val",
                "what": "is empty (0 bytes)",
                "fix": "replace or remove it",
            }
        ],
    }


def test_unrecognised_folders_name_the_layouts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none is missing; give a folder with images/\{train,val\} with masks"):
        inspect_dataset(tmp_path / "none")
    with pytest.raises(DataError, match=r"is empty; fill it with images/\{train,val\} with masks"):
        inspect_dataset(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"is not a data set; expected images/\{train,val\} with masks"):
        inspect_dataset(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file is not a folder; give a folder with images"):
        inspect_dataset(tmp_path / "file")


def test_objects_of_a_coco_folder(write_coco: Callable[..., Path]) -> None:
    def item(number: int, bbox: list[float], crowd: int) -> dict[str, Any]:
        return {"id": number, "image_id": 1, "category_id": 7, "bbox": bbox, "iscrowd": crowd}

    root = write_coco([item(1, [2, 3, 10, 5], 0), item(2, [0, 0, 4, 4], 1), item(3, [5, 5, 0, 4], 0)])
    Image.new("RGB", (31, 20)).save(root / "val/a.png")
    report = inspect_dataset(root)
    assert report.format == "coco"
    train = report.splits["train"]
    assert train.counts() == [("buoy", 0), ("boat", 1), ("(ignored)", 1)]
    assert (train.images, train.pixels) == (1, 600)
    notes = "\n".join(map(str, report.notes))
    assert "annotation 3 has the box (5, 5, 5, 9) without area; the object is left out" in notes
    assert [problem.what for problem in report.problems] == ["is 31x20 (width x height), its annotation says 30x20"]


def test_files_passed_over_are_one_note_a_split(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    (root / "images/train/scan.HEIC").touch()
    (root / "images/train/notes.txt").touch()
    (root / "images/val/x.gif").touch()
    (root / "images/val/y.gif").touch()
    report = inspect_dataset(root)
    assert report.problems == ()
    suffixes = (
        "because images have one of the suffixes .bmp, .j2k, .jp2, .jpeg, .jpg, .npy, .npz, .png, .tif, .tiff, .webp"
    )
    assert list(map(str, report.notes)) == [
        f"{root}/images/train/scan.HEIC is skipped {suffixes}; convert what is an image to JPEG or PNG",
        f"{root}/images/val/x.gif and another file are skipped {suffixes}; convert what is an image to JPEG or PNG",
    ]


def test_mask_values_that_are_rare_are_noted(tmp_path: Path) -> None:
    root = tmp_path / "lakes"
    for split in ("train", "val"):
        mask = np.zeros((120, 120), np.uint8)
        mask[:50] = 2
        if split == "train":
            mask[60, 3] = 1
        for kind, pixels in (("images", np.full((120, 120, 3), len(split), np.uint8)), ("masks", mask)):
            (root / kind / split).mkdir(parents=True)
            Image.fromarray(pixels).save(root / kind / split / "a.png")
    note = str(inspect_dataset(root).notes[0])
    assert f"{root}/masks hold the value 1 only in 1 pixels of a.png; if they come from smoothing or JPEG" in note
    assert note.endswith("if they are classes, name all in classes.txt")
    (root / "classes.txt").write_text("a\nb\nc\n")
    (other,) = inspect_dataset(root).notes
    assert other.what == "has no pixels of b in val, so it is not scored"


def test_numbers_without_a_class_are_noted(write_dataset: WriteDataset) -> None:
    root = write_dataset(classes=None)
    for path in root.glob("masks/*/*.png"):
        pixels = np.asarray(Image.open(path)).copy()
        pixels[pixels == 1] = 9
        Image.fromarray(pixels).save(path)
    assert [str(note) for note in inspect_dataset(root).notes] == [
        f"{root}/masks hold no 1, 2, 3, 4, 5, ..., but 9, which makes 10 classes;"
        " number the classes 0, 1, 2, ... or name all in classes.txt"
    ]


def test_a_class_whose_name_says_that_it_is_none(write_dataset: WriteDataset) -> None:
    root = write_dataset(classes=("ground", "water", "Void"))
    note = f"{root} has a class called Void, which is learnt and scored as any other; --ignore-classes Void ignores it"
    assert note in "\n".join(map(str, inspect_dataset(root).notes))
    (root / "classes.txt").write_text("ground 0 0 0\nwater 1 1 1\nVoid 255 255 255\n")
    assert "Void" not in "\n".join(map(str, inspect_dataset(root).notes))


@pytest.mark.parametrize(("drawn", "values"), [((0, 128), "0, 128"), ((50, 200), "50, 200"), ((0, 16), None)])
def test_levels_of_grey_are_no_classes(write_dataset: WriteDataset, drawn: tuple[int, int], values: str | None) -> None:
    root = write_dataset(classes=None)
    for path in root.glob("masks/*/*.png"):
        Image.fromarray(np.where(np.asarray(Image.open(path)) == 1, *drawn[::-1]).astype(np.uint8)).save(path)
    found = [str(problem) for problem in inspect_dataset(root).problems]
    what = (
        f"{root}/masks hold the values {values}, which are levels of grey and not class numbers; write the classes as"
    )
    assert [text.startswith(what) for text in found] == ([True] if values else [])


def test_numbers_of_objects_are_no_classes(tmp_path: Path) -> None:
    root = tmp_path / "nuclei"
    for number, objects in enumerate((3, 12, 7, 5)):
        mask = np.zeros((40, 40), np.uint8)
        for row in range(objects):
            mask[3 * row : 3 * row + 2, 5:20] = row + 1
        for kind, pixels in (("images", np.full((40, 40, 3), 20 * number, np.uint8)), ("masks", mask)):
            folder = root / kind / ("val" if number == 3 else "train")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    (problem,) = inspect_dataset(root).problems
    what = (
        f"{root}/masks hold the numbers from 1 to an end of their own, up to 12, as masks do that number their objects"
    )
    assert str(problem).startswith(f"{what}; write 1 for every object, or train instance-segmentation on outlines")
    (root / "classes.txt").write_text("\n".join(f"c{number}" for number in range(13)))
    assert inspect_dataset(root).problems == ()
