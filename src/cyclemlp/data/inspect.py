"""What is in a data set, and everything that is wrong with it: every file is decoded."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from cyclemlp.data.class_names import ClassesError
from cyclemlp.data.contact_sheet import LabelledPicture, MaskLabel
from cyclemlp.data.dataset_notes import Counts, odd_values, passed_over
from cyclemlp.data.detection import DetectionSplit, other_size
from cyclemlp.data.formats import class_folders, masks
from cyclemlp.data.formats.detection import FORMATS, DetectionFormat
from cyclemlp.data.formats.masks import IGNORE_INDEX
from cyclemlp.data.images import ImageError, list_images, read_image
from cyclemlp.data.problems import Problem
from cyclemlp.errors import DataError

Pictures = dict[str, tuple[LabelledPicture, ...]]
Result = TypeVar("Result")


@dataclass(frozen=True)
class SplitReport:
    """Counts of one split; `pixels` are those of the readable images, `class_pixels` those of the readable masks."""

    images: int
    pixels: int
    class_pixels: dict[str, int]
    ignored_pixels: int

    def counts(self) -> list[tuple[str, int]]:
        """What belongs to each class, and to none."""
        return [*self.class_pixels.items(), ("(ignored)", self.ignored_pixels)]


@dataclass(frozen=True)
class FolderReport:
    """Counts of one split of class folders; `pixels` are those of the readable images."""

    images: int
    pixels: int
    class_images: dict[str, int]

    def counts(self) -> list[tuple[str, int]]:
        """Images of each class."""
        return list(self.class_images.items())


@dataclass(frozen=True)
class ObjectReport:
    """Counts of one split of images with annotated objects; `pixels` are those of the readable images."""

    images: int
    pixels: int
    class_objects: dict[str, int]
    ignored_objects: int
    images_without_objects: int

    def counts(self) -> list[tuple[str, int]]:
        """Objects of each class, and those to be ignored."""
        return [*self.class_objects.items(), ("(ignored)", self.ignored_objects)]


@dataclass(frozen=True)
class DatasetReport:
    """Content and problems of a data set, of each split with its pictures."""

    root: Path
    format: str
    classes: tuple[str, ...]
    splits: dict[str, SplitReport] | dict[str, FolderReport] | dict[str, ObjectReport]
    problems: tuple[Problem, ...]
    pictures: Pictures = field(default_factory=dict)
    """Those of each split, for a contact sheet."""
    notes: tuple[Problem, ...] = ()
    """What is worth a look, but no obstacle."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "data": str(self.root),
            "format": self.format,
            "classes": list(self.classes),
            "splits": {name: dict(vars(split)) for name, split in self.splits.items()},
            "notes": [_as_dict(note) for note in self.notes],
            "problems": [_as_dict(problem) for problem in self.problems],
        }


def _as_dict(problem: Problem) -> dict[str, str]:
    return {**vars(problem), "path": str(problem.path)}


def inspect_dataset(root: Path) -> DatasetReport:
    """Read every file in `root`. Raises DataError only where no known layout is recognised."""
    if not root.is_dir():
        raise DataError(f"{root} is {'no folder' if root.exists() else 'missing'}; give a folder with {_layouts()}")
    if not any(root.iterdir()):
        raise DataError(f"{root} is empty; fill it with {_layouts()}")
    for known in _FORMATS:
        if known.recognises(root):
            return known.inspect(root)
    raise DataError(f"{root} is in no known layout; accepted: {_layouts()}")


@dataclass(frozen=True)
class _Format:
    layout: str
    recognises: Callable[[Path], bool]
    inspect: Callable[[Path], DatasetReport]


def _inspect_masks(root: Path) -> DatasetReport:
    problems: list[Problem] = []
    names = _class_names(root, problems)
    found = {split: _read_split(root, split) for split in masks.split_names(root)}
    totals: Counts = np.sum([files.totals for files in found.values()], axis=0)
    highest = int(np.flatnonzero(totals[:IGNORE_INDEX]).max(initial=0))
    classes = names or tuple(f"class{index}" for index in range(highest + 1))
    for split, files in found.items():
        problems += files.problems
        for path, present in files.values_in.items():
            if wrong := masks.outside_classes(path, split, present, len(classes)):
                problems.append(wrong)
    if totals.any() and highest == 0:
        problems.append(masks.no_second_class(root))
    splits = {split: _summary(files, classes) for split, files in found.items()}
    values_in = {path: present for files in found.values() for path, present in files.values_in.items()}
    notes = [] if names or highest == 0 else odd_values(root / masks.layout_of(root).masks, totals, values_in)
    pictures = {split: files.pictures for split, files in found.items()}
    return DatasetReport(
        root, "masks", classes, splits, tuple(dict.fromkeys(problems)), pictures, (*notes, *_passed_over(pictures))
    )


def _inspect_folders(root: Path) -> DatasetReport:
    dataset, problems = class_folders.survey(root)
    seen: dict[bytes, tuple[Path, str, int]] = {}
    splits = {}
    for name, split in dataset.splits.items():
        pixels = 0
        label_of = dict(zip(split.images, split.labels, strict=True))
        for path, found in _read_all(_size_and_digest, split.images, f"{name} images"):
            if isinstance(found, ImageError):
                problems.append(Problem(path, name, found.what, found.fix))
                continue
            pixels += found[0]
            first = seen.setdefault(found[1], (path, name, label_of[path]))
            if first[1:] != (name, label_of[path]):
                problems.append(_repeated(path, name, *first[:2]))
        labels = np.bincount(split.labels, minlength=len(dataset.classes)).tolist() if split.labels else []
        counts = dict(zip(dataset.classes, labels or [0] * len(dataset.classes), strict=True))
        splits[name] = FolderReport(len(split.images), pixels, counts)
    pictures = {name: _with_classes(split, dataset.classes) for name, split in dataset.splits.items()}
    return DatasetReport(root, "folders", dataset.classes, splits, tuple(problems), pictures, _passed_over(pictures))


def _with_classes(split: class_folders.FolderSplit, classes: tuple[str, ...]) -> tuple[LabelledPicture, ...]:
    pairs = zip(split.images, split.labels, strict=True)
    return tuple(LabelledPicture(path, classes[label]) for path, label in pairs)


def _passed_over(pictures: Pictures) -> tuple[Problem, ...]:
    of_splits = (passed_over([picture.image for picture in several], split) for split, several in pictures.items())
    return tuple(note for notes in of_splits for note in notes)


def _repeated(path: Path, split: str, first: Path, first_split: str) -> Problem:
    where = "in another class" if first_split == split else f"in {first_split}"
    return Problem(path, split, f"is the same file as {first}, {where}", "remove one of the two")


def _inspect_objects(known: DetectionFormat, root: Path) -> DatasetReport:
    survey = known.survey(root)
    problems = [*survey.problems, *survey.flaws]
    classes = survey.dataset.classes
    splits = {name: _objects(name, split, classes, problems) for name, split in survey.dataset.splits.items()}
    pictures = {
        name: tuple(map(LabelledPicture, split.images, split.records)) for name, split in survey.dataset.splits.items()
    }
    return DatasetReport(root, known.name, classes, splits, tuple(problems), pictures, _passed_over(pictures))


def _objects(name: str, split: DetectionSplit, classes: tuple[str, ...], problems: list[Problem]) -> ObjectReport:
    pixels = 0
    record_of = dict(zip(split.images, split.records, strict=True))
    for path, size in _read_all(_size, split.images, f"{name} images"):
        if isinstance(size, ImageError):
            problems.append(Problem(path, name, size.what, size.fix))
            continue
        pixels += size[0] * size[1]
        if size != record_of[path].size:
            what = other_size(size, record_of[path].size)
            problems.append(Problem(path, name, what, "correct the annotation or the image"))
    labels = [label for record in split.records for label in record.labels[~record.crowd].tolist()]
    counts = dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True)) if labels else {}
    ignored = sum(int(record.crowd.sum()) for record in split.records)
    empty = sum(not len(record.labels) for record in split.records)
    return ObjectReport(len(split.images), pixels, counts or dict.fromkeys(classes, 0), ignored, empty)


def _size(path: Path) -> tuple[int, int]:
    height, width = read_image(path).shape[:2]
    return height, width


_FORMATS = (
    _Format(masks.LAYOUT, masks.is_mask_dataset, _inspect_masks),
    *(_Format(known.layout, known.recognises, partial(_inspect_objects, known)) for known in FORMATS),
    _Format(class_folders.LAYOUT, class_folders.is_folder_dataset, _inspect_folders),
)


def _layouts() -> str:
    return " or ".join(known.layout for known in _FORMATS)


def _class_names(root: Path, problems: list[Problem]) -> tuple[str, ...] | None:
    try:
        return masks.read_classes(root)
    except ClassesError as error:
        problems.append(Problem(error.path, "", error.what, error.fix))
        return None


@dataclass(frozen=True)
class _Files:
    """What was read of one split: `totals` are pixels of each value, `values_in` the values of each mask."""

    images: int
    pixels: int
    totals: Counts
    values_in: dict[Path, Counts]
    problems: list[Problem]
    pictures: tuple[LabelledPicture, ...]


def _read_split(root: Path, split: str) -> _Files:
    pairs, problems = masks.pair_files(root, split)
    layout = masks.layout_of(root)
    images, drawn = map(_files_in, layout.folders(root, split))
    pixels, totals, values_in = 0, np.zeros(256, np.int64), {}
    for path, size in _read_all(_count_pixels, images, f"{split} images"):
        if isinstance(size, ImageError):
            problems.append(Problem(path, split, size.what, size.fix))
        else:
            pixels += size
    numbered = [path for path in drawn if path.suffix.lower() == ".png"]
    for path, counts in _read_all(partial(_count_values, layout.zero_ignored), numbered, f"{split} masks"):
        if isinstance(counts, ImageError):
            problems.append(Problem(path, split, counts.what, counts.fix))
        else:
            totals += counts
            values_in[path] = np.flatnonzero(counts)
    labels = [MaskLabel(path, layout.zero_ignored) for path in pairs.masks]
    pictures = tuple(map(LabelledPicture, pairs.images, labels))
    return _Files(len(images), pixels, totals, values_in, problems, pictures)


def _summary(files: _Files, classes: tuple[str, ...]) -> SplitReport:
    class_pixels = {name: int(files.totals[index]) for index, name in enumerate(classes)}
    return SplitReport(files.images, files.pixels, class_pixels, int(files.totals[IGNORE_INDEX]))


def _files_in(folder: Path) -> list[Path]:
    return list_images(folder) if folder.is_dir() else []


def _count_pixels(path: Path) -> int:
    return read_image(path)[..., 0].size


def _size_and_digest(path: Path) -> tuple[int, bytes]:
    return _count_pixels(path), hashlib.blake2b(path.read_bytes(), digest_size=16).digest()


def _count_values(zero_ignored: bool, path: Path) -> Counts:
    return np.bincount(masks.read_target(path, zero_ignored=zero_ignored).ravel(), minlength=256).astype(np.int64)


def _read_all(
    read: Callable[[Path], Result], paths: Sequence[Path], label: str
) -> Iterator[tuple[Path, Result | ImageError]]:
    """`read` of every path on all cores (Pillow decodes without the interpreter's lock), with a progress bar."""

    def attempt(path: Path) -> Result | ImageError:
        try:
            return read(path)
        except ImageError as error:
            return error

    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        # Threads that set and restore filters at the same time could lose the one that read_image sets.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            results = pool.map(attempt, paths)
            yield from zip(paths, tqdm(results, label, len(paths), unit="file", disable=None, leave=False), strict=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # else Ctrl-C would wait for every file
