"""Classification data as a folder of images per class: `train/CLASS/*.jpg` with `val/CLASS/*.jpg`, as in ImageNet.

A single folder of class folders works too: every image then goes to `train` or `val` by a hash of its name, about one
in five to `val`. The hash looks at nothing else, so images that are added later move no other image from side to side.
Only numpy and Pillow are imported at the top, so that `cyclemlp data` answers without loading torch.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclemlp.data.images import list_images, read_image
from cyclemlp.data.problems import Problem, first_of
from cyclemlp.errors import DataError, did_you_mean

LAYOUT = "class folders (train/CLASS/*.jpg with val/CLASS/*.jpg, or CLASS/*.jpg alone)"
REQUIRED_SPLITS = ("train", "val")
VALIDATION_SHARE = 0.2
EVERYTHING = "all"
"""Name of the split with all images of a folder that has no split folders."""
_SHOWN = 6

_SPLIT_FOLDERS = (("train", "val"), ("train2017", "val2017"))
_OTHER_NAMES = ("validation", "valid", "test")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderSplit:
    """The images of a split and the class number of each, in the same order."""

    images: tuple[Path, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class FolderDataset:
    """A whole data set; label `i` is `classes[i]`, the classes sorted by name."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, FolderSplit]


class ClassifiedSamples:
    """The images of a split as a map-style torch data set.

    An item is (`transform(pixels)`, label): pixels uint8 (H, W, 3), label an int64 scalar tensor. Reading an item
    raises DataError for an unusable file.
    """

    def __init__(self, split: FolderSplit, transform: Callable[[Any], Any]) -> None:
        self.split = split
        self.transform = transform

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        import torch

        return self.transform(read_image(self.split.images[index])), torch.tensor(self.split.labels[index])


def is_folder_dataset(root: Path) -> bool:
    """Whether `root` looks like this format, with splits or without."""
    names = _with_images(root)
    are_splits = any(set(pair) <= set(names) for pair in _SPLIT_FOLDERS)  # images without classes, as in COCO
    return has_splits(root) or (len(names) > 1 and not are_splits)


def has_splits(root: Path) -> bool:
    """Whether `root/train` holds class folders."""
    return (root / "train").is_dir() and bool(_with_images(root / "train"))


def find_folder_dataset(root: Path) -> FolderDataset:
    """The data set in `root`; the files are listed, not opened.

    Raises DataError for the first problem, with the number of further ones.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder; expected {LAYOUT}")
    if not is_folder_dataset(root):
        raise DataError(f"{root} is no data set; expected {LAYOUT}")
    dataset, problems = survey(root)
    if problems:
        raise DataError(first_of(problems, root))
    return dataset


def survey(root: Path) -> tuple[FolderDataset, list[Problem]]:
    """What is in `root`, and what is wrong with its folders."""
    if not has_splits(root):
        return _survey_unsplit(root)
    classes = tuple(_class_folders(root / "train"))
    splits: dict[str, FolderSplit] = {}
    problems: list[Problem] = []
    for name in _split_names(root):
        splits[name], found = _read_split(root / name, name, classes)
        problems += found
    return FolderDataset(root, classes, splits), problems + _too_few(root, classes)


def read_split(root: Path, name: str, classes: Sequence[str]) -> FolderSplit:
    """The images of one split, labelled by their places in `classes`; no other split need be there.

    Without split folders `name` is `train` or `val`, chosen as for training, or `all`. Raises DataError, also for a
    class that is not in `classes`.
    """
    folder = root / name
    if name == EVERYTHING and not folder.is_dir():
        folder = root
    if not _with_images(folder):
        return _split_of(find_folder_dataset(root), name, classes)
    if foreign := [each for each in _class_folders(folder) if each not in classes]:
        raise DataError(_foreign(folder / foreign[0], classes))
    split, problems = _read_split(folder, name, tuple(classes))
    if problems:
        raise DataError(first_of(problems, root))
    return split


def _split_of(dataset: FolderDataset, name: str, classes: Sequence[str]) -> FolderSplit:
    if name not in dataset.splits:
        names = [*dataset.splits, EVERYTHING]
        raise DataError(f"{dataset.root} has no split {name!r}; it has {', '.join(names)}.{did_you_mean(name, names)}")
    if unknown := [each for each in dataset.classes if each not in classes]:
        raise DataError(_foreign(dataset.root / unknown[0], classes))
    split = dataset.splits[name]
    labels = tuple(classes.index(dataset.classes[label]) for label in split.labels)
    return FolderSplit(split.images, labels)


def _foreign(folder: Path, classes: Sequence[str]) -> str:
    listed = ", ".join(classes[:_SHOWN]) + (", ..." if len(classes) > _SHOWN else "")
    near = did_you_mean(folder.name, classes)
    return f"{folder} is no class of the model, which knows {len(classes)} ({listed}).{near} Correct or remove it"


def _split_names(root: Path) -> tuple[str, ...]:
    further = {path.name for path in root.iterdir() if path.is_dir() and _with_images(path)}
    return (*REQUIRED_SPLITS, *sorted(further - set(REQUIRED_SPLITS)))


def _read_split(folder: Path, split: str, classes: tuple[str, ...]) -> tuple[FolderSplit, list[Problem]]:
    if not folder.is_dir():
        return FolderSplit((), ()), [_missing(folder, split)]
    problems = _loose_images(folder, split)
    images: list[Path] = []
    labels: list[int] = []
    for name in _class_folders(folder):
        if name not in classes:
            fix = f"correct its name, or put training images into {folder.parent / 'train' / name}"
            problems.append(Problem(folder / name, split, "is a class that train does not have", fix))
            continue
        found = list_images(folder / name)
        if not found:
            problems.append(_empty(folder / name, split))
        images += found
        labels += [classes.index(name)] * len(found)
    if not images and not problems:
        problems.append(Problem(folder, split, "has no class folders", f"put images into {folder}/CLASS"))
    return FolderSplit(tuple(images), tuple(labels)), problems


def _survey_unsplit(root: Path) -> tuple[FolderDataset, list[Problem]]:
    classes = tuple(_class_folders(root))
    problems = _loose_images(root, "") + _too_few(root, classes)
    parts: dict[str, list[tuple[Path, int]]] = {"train": [], "val": []}
    for label, name in enumerate(classes):
        images = list_images(root / name)
        if not images:
            problems.append(_empty(root / name, ""))
        for split, chosen in _split_by_hash(images).items():
            parts[split] += [(path, label) for path in chosen]
    splits = {
        name: FolderSplit(tuple(path for path, _ in pairs), tuple(label for _, label in pairs))
        for name, pairs in parts.items()
    }
    if not splits["val"].images and not problems:
        problems.append(
            Problem(root, "val", "has too few images to hold some out", "add images, or make train and val")
        )
    counts = {name: len(split.images) for name, split in splits.items()}
    _LOG.info(
        "%s has no train and val: %d images train and %d validate, chosen by a hash of their names",
        root,
        counts["train"],
        counts["val"],
    )
    return FolderDataset(root, classes, splits), problems


def _split_by_hash(images: list[Path]) -> dict[str, list[Path]]:
    """A class none of whose images would train keeps all of them for training."""
    held_out = [path for path in images if _hash(path) < VALIDATION_SHARE]
    if len(held_out) == len(images):
        held_out = []
    return {"train": [path for path in images if path not in set(held_out)], "val": held_out}


def _hash(path: Path) -> float:
    """A number from 0 to 1 that follows from the names of class and file alone."""
    digest = hashlib.blake2b(f"{path.parent.name}/{path.name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _class_folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _with_images(folder: Path) -> list[str]:
    """Names of the folders in `folder` that have images directly in them."""
    if not folder.is_dir():
        return []
    return [name for name in _class_folders(folder) if any(list_images(folder / name))]


def _loose_images(folder: Path, split: str) -> list[Problem]:
    loose = list_images(folder)
    if not loose:
        return []
    count = f"{len(loose)} images" if len(loose) > 1 else "1 image"
    what = f"has {count} outside of class folders ({loose[0].name}, for one)"
    fix = "move each into the folder of its class"
    if loose[0].name.startswith("ILSVRC2012_val_"):
        fix = f"sort them into {folder}/nXXXXXXXX by the archive's ILSVRC2012_validation_ground_truth.txt"
    return [Problem(folder, split, what, fix)]


def _empty(folder: Path, split: str) -> Problem:
    inner = any(path.is_dir() for path in folder.iterdir())
    fix = "move them up out of its subfolders" if inner else "put some there, or remove the folder"
    return Problem(folder, split, "has no images directly in it", fix)


def _missing(folder: Path, split: str) -> Problem:
    fix = f"move about every fifth image of train/CLASS to {split}/CLASS, or give {folder.parent / 'train'} alone"
    near = [name for name in _OTHER_NAMES if (folder.parent / name).is_dir()]
    return Problem(folder, split, "is missing", f"rename {folder.parent / near[0]} to {split}" if near else fix)


def _too_few(root: Path, classes: Iterable[str]) -> list[Problem]:
    names = list(classes)
    if len(names) > 1:
        return []
    return [Problem(root, "train", f"has one class ({names[0]})", "add a folder for each further class")]
