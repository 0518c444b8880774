"""What of the classes makes scores say less than they seem to."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.masks import MaskDataset

WriteDataset = Callable[..., Path]


def class_folders(root: Path, **splits: tuple[str, ...]) -> Path:
    number = 0
    for split, classes in splits.items():
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                Image.fromarray(np.full((9, 9, 3), number, np.uint8)).save(folder / f"{i}.png")
                number += 1
    return root


def test_classes_that_are_never_scored_are_named(tmp_path: Path) -> None:
    (note,) = inspect_dataset(class_folders(tmp_path / "a", train=("cat", "dog", "ox"), val=("cat",))).notes
    assert str(note) == (
        f"{tmp_path}/a has no images of dog, ox in val, so they are not scored; move or label some there"
    )
    assert inspect_dataset(class_folders(tmp_path / "b", train=("cat", "dog"), val=("cat", "dog"))).notes == ()


@pytest.mark.parametrize(
    ("names", "found"), [(("Cat", "cat", "dog"), "'Cat', 'cat'"), (("a-b", "a_b"), "'a-b', 'a_b'")]
)
def test_names_that_may_be_one_are_named(tmp_path: Path, names: tuple[str, ...], found: str) -> None:
    (note,) = inspect_dataset(class_folders(tmp_path, train=names, val=names)).notes
    assert f"has classes with nearly the same name: {found}; if they are one, correct" in str(note)


def test_names_without_letters_are_themselves(tmp_path: Path) -> None:
    assert inspect_dataset(class_folders(tmp_path, train=("+", "-"), val=("+", "-"))).notes == ()


def test_classes_of_masks_without_names_that_are_never_learnt_or_scored(tmp_path: Path) -> None:
    for split, values in (("train", (0, 1, 2)), ("val", (0, 1, 3))):
        mask = np.zeros((9, 12), np.uint8)
        for column, value in enumerate(values):
            mask[:, 4 * column : 4 * column + 4] = value
        for kind, pixels in (("images", np.full((9, 12, 3), len(split), np.uint8)), ("masks", mask)):
            (tmp_path / kind / split).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / kind / split / "a.png")
    assert [note.what for note in inspect_dataset(tmp_path).notes] == [
        "has no pixels of class3 in train, so it cannot be learnt",
        "has no pixels of class2 in val, so it is not scored",
    ]


def test_pixels_that_images_hide_are_not_counted(write_dataset: WriteDataset) -> None:
    """Objects that are cut out leave their background transparent: one class is learnt, and scored 100 %."""
    root = write_dataset()
    for path in root.glob("images/*/*.png"):
        pixels = np.full((32, 48, 4), 120, np.uint8)
        pixels[8:, :, 3] = 0
        Image.fromarray(pixels).save(path)
    report = inspect_dataset(root)
    assert "hold no class but 0" not in str(report.problems[0])
    assert "hold the class 1 alone, and pixels that are ignored" in str(report.problems[0])
    note = str(report.notes[0])
    assert "train/a.png gives classes to pixels that are transparent in its image, as do 1 further masks" in note
    assert "which are ignored: 68.8% of all; save the images without transparency if these pixels count" in note
    assert report.splits["train"].of_class == {"ground": 0, "water": 2 * 8 * 48}
    assert report.splits["train"].ignored == 2 * 24 * 48


def test_a_class_that_only_hidden_pixels_have_is_none(write_dataset: WriteDataset) -> None:
    root = write_dataset(classes=None)
    mask = np.asarray(Image.open(root / "masks/train/a.png")).copy()
    mask[20], pixels = 2, np.full((32, 48, 4), 120, np.uint8)
    pixels[20, :, 3] = 0
    Image.fromarray(mask).save(root / "masks/train/a.png")
    Image.fromarray(pixels).save(root / "images/train/a.png")
    report = inspect_dataset(root)
    assert report.problems == ()
    assert report.dataset.classes == ("class0", "class1") == find_dataset(root, MaskDataset).classes
