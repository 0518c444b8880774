"""Classification data as a folder of images per class: `train/CLASS/*.jpg` with `val/CLASS/*.jpg`, as in ImageNet.

A single folder of class folders works too: every image then goes to `train` or `val` by a hash of its name, about one
in five to `val`. The hash looks at nothing else, so images that are added later do not move any other image between
the splits.
Only numpy and Pillow are imported at the top, so that `cyclemlp data` answers without loading torch.
"""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from cyclemlp.data.datasets import ClassifiedDataset, ClassifiedSplit
from cyclemlp.data.folders import entries_of, is_system, name_key
from cyclemlp.data.formats.layout import SPLIT_OF, folder_of_split
from cyclemlp.data.formats.registry import DatasetFormat, find_dataset, register
from cyclemlp.data.held_out import HoldOut
from cyclemlp.data.images import list_images
from cyclemlp.data.problems import DataRequest, Findings, listed, with_required
from cyclemlp.data.unused_files import unused_files
from cyclemlp.errors import DataError, did_you_mean

VALIDATION_SHARE = 0.2
EVERYTHING = "all"
"""Name of the split with all images of a folder that has no split folders."""

_LAYOUT = "class folders (train/CLASS/*.jpg with val/CLASS/*.jpg, or CLASS/*.jpg alone)"
_SPLIT_FOLDERS = (("train", "val"), ("train2017", "val2017"))
_SPLIT_NAMES = frozenset(SPLIT_OF)
_PARTS = frozenset(
    ("image", "images", "img", "imgs", "mask", "masks", "label", "labels", "annotation", "annotations", "gt")
)
"""Folders that hold images and their masks; where there is nothing else, they are no classes."""
_LOG = logging.getLogger(__name__)


def is_folder_dataset(root: Path) -> bool:
    """Whether `root` looks like this format, with splits or without."""
    names = _with_images(root)
    are_splits = any(set(pair) <= set(names) for pair in _SPLIT_FOLDERS)  # images without classes, as in COCO
    if in_train := _with_images(folder_of_split(root, "train")):
        return not _are_all(in_train, _PARTS)
    return len(names) > 1 and not are_splits and not _are_all(names, _PARTS) and not _are_all(names, _SPLIT_NAMES)


def _are_all(names: Sequence[str], of: frozenset[str]) -> bool:
    return all(name.casefold() in of for name in names)


def read_class_folders(root: Path, findings: Findings) -> ClassifiedDataset:
    """The data set in `root`; the files are listed, not opened. The classes are sorted by name."""
    train = folder_of_split(root, "train")
    if not _with_images(train):
        return _read_unsplit(root, findings)
    classes = tuple(_class_folders(train))
    present = (SPLIT_OF.get(path.name.casefold(), path.name) for path in entries_of(root) if _with_images(path))
    names = with_required(present, findings.request.splits)
    splits = {name: _read_split(folder_of_split(root, name), classes, findings.of(name)) for name in names}
    _check_number(root, classes, findings)
    _note_unused(root, splits.values(), findings)
    return ClassifiedDataset(root, classes, splits)


def read_split(root: Path, name: str, classes: Sequence[str], how: HoldOut | None = None) -> ClassifiedSplit:
    """The images of one split, labelled by their places in `classes`; no other split need exist.

    Without split folders `name` is `train` or `val`, chosen as for training, or `all`. `how` says that the split is
    one of those which are made by holding images out. Raises DataError, also for a
    class that is not in `classes`.
    """
    folder = folder_of_split(root, name)
    if name == EVERYTHING and not folder.is_dir():
        folder = root
    if how is None and _with_images(folder):
        _check_known(folder, _class_folders(folder), classes)
        findings = Findings(split=name)
        split = _read_split(folder, classes, findings)
        _note_unused(folder, [split], findings)
        findings.check(root)
        return split
    dataset = find_dataset(root, ClassifiedDataset, DataRequest(hold_out=how))
    if name not in dataset.splits:
        names = [*dataset.splits, EVERYTHING]
        raise DataError(f"{root} has no split {name!r}; it has {', '.join(names)}.{did_you_mean(name, names)}")
    _check_known(root, dataset.classes, classes)
    split = dataset.splits[name]
    number_of = _numbers(classes)
    place_of = [number_of[name_key(each)] for each in dataset.classes]
    return ClassifiedSplit(split.images, tuple(place_of[label] for label in split.labels))


def _check_known(folder: Path, names: Sequence[str], classes: Sequence[str]) -> None:
    """Raise DataError for the first of the class folders that is not among the `classes` of a model."""
    number_of = _numbers(classes)
    if unknown := [name for name in names if name_key(name) not in number_of]:
        known = f"{len(classes)} ({listed(classes, 6)})"
        near = did_you_mean(unknown[0], classes)
        what = f"{folder / unknown[0]} is not a class of the model, which knows {known}."
        raise DataError(f"{what}{near} Correct or remove it")


def _read_split(folder: Path, classes: Sequence[str], findings: Findings) -> ClassifiedSplit:
    if not folder.is_dir():
        findings.add_missing(folder)
        return ClassifiedSplit((), ())
    before = len(findings.problems)
    _add_loose_images(folder, findings)
    labelled: list[tuple[Path, int]] = []
    number_of, names = _numbers(classes), _class_folders(folder)
    _refuse_same_text(folder, names, findings)
    for name in names:
        if (label := number_of.get(name_key(name))) is not None:
            labelled += [(path, label) for path in _images_of_class(folder / name, findings)]
        else:
            fix = f"correct its name, or put training images into {folder_of_split(folder.parent, 'train') / name}"
            findings.add(folder / name, "is a class that train does not have", fix)
    if not labelled and len(findings.problems) == before:
        findings.add(folder, "has no class folders", f"put images into {folder}/CLASS")
    return ClassifiedSplit.of(labelled)


def _read_unsplit(root: Path, findings: Findings) -> ClassifiedDataset:
    classes = tuple(_class_folders(root))
    _refuse_same_text(root, classes, findings)
    _add_loose_images(root, findings)
    _check_number(root, classes, findings)
    labelled: dict[str, list[tuple[Path, int]]] = {"train": [], "val": []}
    for label, name in enumerate(classes):
        images = _images_of_class(root / name, findings)
        parts = {"train": images} if findings.request.hold_out is not None else _split_by_hash(images)
        for split, chosen in parts.items():
            labelled[split] += [(path, label) for path in chosen]
    if findings.request.hold_out is not None:
        del labelled["val"]
    elif not labelled["val"] and not findings.problems:
        findings.of("val").add(root, "has too few images to hold some out", "add images, or make train and val")
    else:
        rule = "%d images train and %d validate, chosen by a hash of their names"
        _LOG.info(f"%s has no train and val: {rule}", root, len(labelled["train"]), len(labelled["val"]))
    splits = {split: ClassifiedSplit.of(pairs) for split, pairs in labelled.items()}
    _note_unused(root, splits.values(), findings)
    return ClassifiedDataset(root, classes, splits)


def _numbers(classes: Sequence[str]) -> dict[str, int]:
    """The number of each class by its name, which is the same text whether its accents are composed or decomposed."""
    return {name_key(name): number for number, name in enumerate(classes)}


def _refuse_same_text(folder: Path, names: Sequence[str], findings: Findings) -> None:
    """Add a problem for each folder whose name differs from another's only in the form of its accents."""
    first: dict[str, str] = {}
    for name in names:
        if first.setdefault(name_key(name), name) != name:
            what = "has the name of another class folder, with its accents in another Unicode form"
            findings.add(folder / name, what, "move its images into the other")


def _note_unused(folder: Path, splits: Iterable[ClassifiedSplit], findings: Findings) -> None:
    """Count what is not used, unless a problem says so."""
    if not findings.problems:
        used = [path for split in splits for path in split.images]
        findings.notes += unused_files(folder, used, findings.split)


def _images_of_class(folder: Path, findings: Findings) -> list[Path]:
    images = list_images(folder)
    if not images:
        inner = any(path.is_dir() for path in entries_of(folder))
        fix = "move them up out of its subfolders" if inner else "put some there, or remove the folder"
        findings.add(folder, "has no images directly in it", fix)
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
    paths = (path for path in entries_of(folder) if not path.name.startswith(".") and not is_system(path.name))
    return sorted(path.name for path in paths if path.is_dir())


def _with_images(folder: Path) -> list[str]:
    """Names of the folders in `folder` that have images directly in them."""
    return [name for name in _class_folders(folder) if list_images(folder / name)] if folder.is_dir() else []


def _add_loose_images(folder: Path, findings: Findings) -> None:
    loose = list_images(folder)
    if not loose:
        return
    count = f"{len(loose)} images" if len(loose) > 1 else "1 image"
    fix = "move each into the folder of its class"
    if loose[0].name.startswith("ILSVRC2012_val_"):
        fix = f"sort them into {folder}/nXXXXXXXX by the archive's ILSVRC2012_validation_ground_truth.txt"
    findings.add(folder, f"has {count} outside of class folders (such as {loose[0].name})", fix)


def _check_number(root: Path, classes: Sequence[str], findings: Findings) -> None:
    if len(classes) == 1:
        findings.of("train").add(root, f"has one class ({classes[0]})", "add a folder for each further class")


register(DatasetFormat("folders", ClassifiedDataset, _LAYOUT, is_folder_dataset, read_class_folders))
