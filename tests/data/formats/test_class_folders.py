import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemlp.data.datasets import ClassifiedDataset, SplitSamples
from cyclemlp.data.formats.class_folders import is_folder_dataset, read_split
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.errors import DataError
from cyclemlp.tasks.classification.config import LabelAugmentation
from cyclemlp.tasks.classification.train import LabelTrainTransform

STILL = LabelAugmentation(scale=(1.0, 1.0), flip=0.0, colour_jitter=0.0)


def save(path: Path, value: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30, 3), value, np.uint8)).save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two cats and a dog train, one of each validates; no two files are the same."""
    root = tmp_path / "pets"
    names = ["train/cat/1.png", "train/cat/2.PNG", "train/dog/1.jpg", "val/cat/3.png", "val/dog/2.png"]
    for value, name in enumerate(names):
        save(root / name, 40 * value)
    (root / "train" / ".cache").mkdir()
    return root


def problems_of(root: Path) -> list[str]:
    return [f"{p.path.relative_to(root)} {p.what}; {p.fix}" for p in inspect_dataset(root).problems]


def test_a_sound_data_set(pets: Path) -> None:
    dataset = find_dataset(pets, ClassifiedDataset)
    assert dataset.classes == ("cat", "dog")
    train = dataset.splits["train"]
    assert [path.name for path in train.images] == ["1.png", "2.PNG", "1.jpg"]
    assert train.labels == (0, 0, 1)
    assert dataset.splits["val"].labels == (0, 1)
    report = inspect_dataset(pets)
    assert report.format == "folders"
    assert report.splits["train"].to_dict() == {"images": 3, "pixels": 1800, "class_images": {"cat": 2, "dog": 1}}
    assert report.problems == ()


def test_samples_are_read_and_labelled(pets: Path) -> None:
    samples = SplitSamples(find_dataset(pets, ClassifiedDataset).splits["train"], LabelTrainTransform(16, STILL))
    assert len(samples) == 3
    image, label = samples[2]
    assert image.shape == (3, 16, 16)
    assert (label.item(), label.shape) == (1, ())


def test_without_splits_a_hash_of_the_names_decides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("cat", "dog"):
        for i in range(40):
            save(tmp_path / name / f"{i}.png")
    with caplog.at_level(logging.INFO):
        first = find_dataset(tmp_path, ClassifiedDataset).splits
    assert 6 <= len(first["val"].images) <= 26
    assert len(first["train"].images) + len(first["val"].images) == 80
    counts = f"{len(first['train'].images)} images train and {len(first['val'].images)} validate"
    assert counts in caplog.text
    save(tmp_path / "cat" / "a.png")
    second = find_dataset(tmp_path, ClassifiedDataset).splits
    assert set(first["train"].images) <= set(second["train"].images)
    assert set(first["val"].images) <= set(second["val"].images)


@pytest.mark.parametrize(
    ("break_it", "problem"),
    [
        ("rm -r val", "val is missing; give --val-share 0.2 to validate on a fifth of the training images"),
        ("mv val/dog val/wolf", "val/wolf is a class that train does not have; correct its name"),
        ("rm train/dog/*", "train/dog has no images directly in it; put some there, or remove the folder"),
        ("mkdir train/dog/in; mv train/dog/*.jpg train/dog/in", "has no images directly in it; move them up"),
        ("cp train/cat/1.png train/", "train has 1 image outside of class folders (such as 1.png); move each"),
        ("rm -r val/*; touch val/ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_validation_ground_truth.txt"),
        ("rm -r train/dog val/dog", "has one class (cat); add a folder for each further class"),
    ],
)
def test_problems_are_found_by_data_and_refused_by_training(pets: Path, break_it: str, problem: str) -> None:
    import subprocess

    subprocess.run(break_it, shell=True, cwd=pets, check=True)
    assert any(problem in found for found in problems_of(pets))
    with pytest.raises(DataError) as refused:
        find_dataset(pets, ClassifiedDataset)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("names", [("train", "valid"), ("Train", "Val"), ("training", "validation")])
def test_other_names_of_the_splits(pets: Path, names: tuple[str, str]) -> None:
    for split, name in zip(("train", "val"), names, strict=True):
        (pets / split).rename(pets / "other")
        (pets / "other").rename(pets / name)
    splits = find_dataset(pets, ClassifiedDataset).splits
    assert {name: len(split.images) for name, split in splits.items()} == {"train": 3, "val": 2}
    assert inspect_dataset(pets).problems == ()
    assert read_split(pets, "val", ("cat", "dog")).labels == (0, 1)


def test_files_that_are_not_images_and_files_in_two_places(pets: Path) -> None:
    (pets / "train" / "cat" / "1.png").write_text("not an image", encoding="utf-8")
    (pets / "val" / "dog" / "9.jpg").write_bytes((pets / "train" / "dog" / "1.jpg").read_bytes())
    (pets / "val" / "cat" / "9.jpg").write_bytes((pets / "val" / "dog" / "2.png").read_bytes())
    found = problems_of(pets)
    assert len(found) == 3
    assert found[0].startswith("train/cat/1.png is not an image in a known format")
    assert "val/dog/2.png is the same file as" in found[1]
    assert "val/cat/9.jpg, in another class; remove one of the two" in found[1]
    assert "train/dog/1.jpg, in train; remove one of the two" in found[2]


def test_other_layouts_are_not_recognised(tmp_path: Path) -> None:
    save(tmp_path / "train" / "1.png")
    save(tmp_path / "val" / "2.png")
    assert not is_folder_dataset(tmp_path)
    with pytest.raises(DataError, match="is not a data set with class labels; expected class folders"):
        find_dataset(tmp_path, ClassifiedDataset)
    with pytest.raises(DataError, match="is missing; give a folder with class folders"):
        find_dataset(tmp_path / "nowhere", ClassifiedDataset)
