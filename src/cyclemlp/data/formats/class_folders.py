"""Classification data as a folder of images per class: `train/CLASS/*.jpg` with `val/CLASS/*.jpg`, as in ImageNet.

A single folder of class folders works too: every image then goes to `train` or `val` by a hash of its name, about one
in five to `val`. The hash looks at nothing else, so images that are added later do not move any other image between
the splits.
Only numpy and Pillow are imported at the top, so that `cyclemlp data` answers without loading torch.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from cyclemlp.data.formats.registry import REQUIRED_SPLITS, DatasetFormat, find_dataset, register
from cyclemlp.data.images import list_images
from cyclemlp.data.labels import ClassifiedDataset, ClassifiedSplit
from cyclemlp.data.problems import Findings, listed
from cyclemlp.errors import DataError, did_you_mean

VALIDATION_SHARE = 0.2
EVERYTHING = "all"
"""Name of the split with all images of a folder that has no split folders."""

_SPLIT_FOLDERS = (("train", "val"), ("train2017", "val2017"))
_OTHER_NAMES = ("validation", "valid", "test")
_LOG = logging.getLogger(__name__)


def is_folder_dataset(root: Path) -> bool:
    """Whether `root` looks like this format, with splits or without."""
    names = _with_images(root)
    are_splits = any(set(pair) <= set(names) for pair in _SPLIT_FOLDERS)  # images without classes, as in COCO
    return has_splits(root) or (len(names) > 1 and not are_splits)


def has_splits(root: Path) -> bool:
    """Whether `root/train` holds class folders."""
    return (root / "train").is_dir() and bool(_with_images(root / "train"))


def read_class_folders(root: Path, findings: Findings) -> ClassifiedDataset:
    """The data set in `root`; the files are listed, not opened. The classes are sorted by name."""
    if not has_splits(root):
        return _read_unsplit(root, findings)
    classes = tuple(_class_folders(root / "train"))
    splits = {name: _read_split(root / name, name, classes, findings) for name in _split_names(root)}
    _check_number(root, classes, findings)
    return ClassifiedDataset(root, classes, splits)


def read_split(root: Path, name: str, classes: Sequence[str]) -> ClassifiedSplit:
    """The images of one split, labelled by their places in `classes`; no other split need exist.

    Without split folders `name` is `train` or `val`, chosen as for training, or `all`. Raises DataError, also for a
    class that is not in `classes`.
    """
    folder = root / name
    if name == EVERYTHING and not folder.is_dir():
        folder = root
    if not _with_images(folder):
        return _split_of(find_dataset(root, ClassifiedDataset), name, classes)
    if foreign := [each for each in _class_folders(folder) if each not in classes]:
        raise DataError(_foreign(folder / foreign[0], classes))
    findings = Findings()
    split = _read_split(folder, name, tuple(classes), findings)
    findings.check(root)
    return split


def _split_of(dataset: ClassifiedDataset, name: str, classes: Sequence[str]) -> ClassifiedSplit:
    if name not in dataset.splits:
        names = [*dataset.splits, EVERYTHING]
        raise DataError(f"{dataset.root} has no split {name!r}; it has {', '.join(names)}.{did_you_mean(name, names)}")
    if unknown := [each for each in dataset.classes if each not in classes]:
        raise DataError(_foreign(dataset.root / unknown[0], classes))
    split = dataset.splits[name]
    labels = tuple(classes.index(dataset.classes[label]) for label in split.labels)
    return ClassifiedSplit(split.images, labels)


def _foreign(folder: Path, classes: Sequence[str]) -> str:
    near = did_you_mean(folder.name, classes)
    known = f"{len(classes)} ({listed(classes, 6)})"
    return f"{folder} is not a class of the model, which knows {known}.{near} Correct or remove it"


def _split_names(root: Path) -> tuple[str, ...]:
    further = {path.name for path in root.iterdir() if path.is_dir() and _with_images(path)}
    return (*REQUIRED_SPLITS, *sorted(further - set(REQUIRED_SPLITS)))


def _read_split(folder: Path, split: str, classes: tuple[str, ...], findings: Findings) -> ClassifiedSplit:
    if not folder.is_dir():
        _add_missing(folder, split, findings)
        return ClassifiedSplit((), ())
    before = len(findings.problems)
    _add_loose_images(folder, split, findings)
    label_of = {name: label for label, name in enumerate(classes)}
    images: list[Path] = []
    labels: list[int] = []
    for name in _class_folders(folder):
        if name not in label_of:
            fix = f"correct its name, or put training images into {folder.parent / 'train' / name}"
            findings.add(folder / name, split, "is a class that train does not have", fix)
            continue
        found = _images_of_class(folder / name, split, findings)
        images += found
        labels += [label_of[name]] * len(found)
    if not images and len(findings.problems) == before:
        findings.add(folder, split, "has no class folders", f"put images into {folder}/CLASS")
    return ClassifiedSplit(tuple(images), tuple(labels))


def _read_unsplit(root: Path, findings: Findings) -> ClassifiedDataset:
    classes = tuple(_class_folders(root))
    _add_loose_images(root, "", findings)
    _check_number(root, classes, findings)
    parts: dict[str, list[tuple[Path, int]]] = {"train": [], "val": []}
    for label, name in enumerate(classes):
        for split, chosen in _split_by_hash(_images_of_class(root / name, "", findings)).items():
            parts[split] += [(path, label) for path in chosen]
    splits = {
        name: ClassifiedSplit(tuple(path for path, _ in pairs), tuple(label for _, label in pairs))
        for name, pairs in parts.items()
    }
    if not splits["val"].images and not findings.problems:
        findings.add(root, "val", "has too few images to hold some out", "add images, or make train and val")
    counts = (len(splits["train"].images), len(splits["val"].images))
    rule = "%d images train and %d validate, chosen by a hash of their names"
    _LOG.info(f"%s has no train and val: {rule}", root, *counts)
    return ClassifiedDataset(root, classes, splits)


def _images_of_class(folder: Path, split: str, findings: Findings) -> list[Path]:
    images = list_images(folder)
    if not images:
        inner = any(path.is_dir() for path in folder.iterdir())
        fix = "move them up out of its subfolders" if inner else "put some there, or remove the folder"
        findings.add(folder, split, "has no images directly in it", fix)
    return images


def _split_by_hash(images: list[Path]) -> dict[str, list[Path]]:
    """A class none of whose images would train keeps all of them for training."""
    parts: dict[str, list[Path]] = {"train": [], "val": []}
    for path in images:
        parts["val" if _hash(path) < VALIDATION_SHARE else "train"].append(path)
    return parts if parts["train"] else {"train": images, "val": []}


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


def _add_loose_images(folder: Path, split: str, findings: Findings) -> None:
    loose = list_images(folder)
    if not loose:
        return
    count = f"{len(loose)} images" if len(loose) > 1 else "1 image"
    what = f"has {count} outside of class folders (such as {loose[0].name})"
    fix = "move each into the folder of its class"
    if loose[0].name.startswith("ILSVRC2012_val_"):
        fix = f"sort them into {folder}/nXXXXXXXX by the archive's ILSVRC2012_validation_ground_truth.txt"
    findings.add(folder, split, what, fix)


def _add_missing(folder: Path, split: str, findings: Findings) -> None:
    fix = f"move about every fifth image of train/CLASS to {split}/CLASS, or give {folder.parent / 'train'} alone"
    near = [name for name in _OTHER_NAMES if (folder.parent / name).is_dir()]
    findings.add(folder, split, "is missing", f"rename {folder.parent / near[0]} to {split}" if near else fix)


def _check_number(root: Path, classes: Sequence[str], findings: Findings) -> None:
    if len(classes) == 1:
        findings.add(root, "train", f"has one class ({classes[0]})", "add a folder for each further class")


register(
    DatasetFormat(
        "folders",
        ClassifiedDataset,
        "class folders (train/CLASS/*.jpg with val/CLASS/*.jpg, or CLASS/*.jpg alone)",
        is_folder_dataset,
        read_class_folders,
    )
)
