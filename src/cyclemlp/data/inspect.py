"""What is in a data set, and everything that is wrong with it: every file is decoded."""

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from cyclemlp.data.check_cache import remember, state_of
from cyclemlp.data.datasets import ClassifiedDataset
from cyclemlp.data.folders import entries_of, is_system
from cyclemlp.data.formats.registry import FOR_TRAINING, AnyDataset, all_formats, find_format, held_out_of
from cyclemlp.data.images import (
    IMAGE_SUFFIXES,
    SAME_SIZE,
    SIDEWAYS,
    ImageError,
    exif_orientation,
    ignore_harmless_warnings,
)
from cyclemlp.data.mask_values import (
    Counts,
    MaskValues,
    grey_levels,
    odd_values,
    other_palettes,
    transparent_numbers,
    turned_within_size,
    values_of,
)
from cyclemlp.data.masks import (
    IGNORE_INDEX,
    MaskDataset,
    MaskSplit,
    masks_folder,
    no_second_class,
    numbered_classes,
    outside_classes,
    with_white_class,
)
from cyclemlp.data.objects import DetectionDataset, check_size
from cyclemlp.data.problems import DataRequest, Findings, Problem, listed
from cyclemlp.data.rasters import decoded_size
from cyclemlp.progress import progress_bar

Result = TypeVar("Result")
MAX_REPEATED = 1e-3
"""Share of the images that may be in two classes or splits: large collections have a few such, ImageNet among them."""
_COMPANIONS = frozenset({".xml", ".txt", ".json", ".csv"})
"""Suffixes of labels, which may be next to images."""


@dataclass(frozen=True)
class SplitReport:
    """Counts of one split. `pixels` are those of the readable images."""

    images: int
    pixels: int
    unit: Literal["pixels", "images", "objects"]
    """What is counted of each class; pixels are those of the readable masks."""
    of_class: dict[str, int]
    ignored: int | None = None
    images_without_objects: int | None = None

    def counts(self) -> list[tuple[str, int]]:
        """What belongs to each class, and what is ignored."""
        return [*self.of_class.items(), *([] if self.ignored is None else [("(ignored)", self.ignored)])]

    def to_dict(self) -> dict[str, object]:
        """As plain values for JSON."""
        values = {
            "images": self.images,
            "pixels": self.pixels,
            f"class_{self.unit}": self.of_class,
            f"ignored_{self.unit}": self.ignored,
            "images_without_objects": self.images_without_objects,
        }
        return {name: value for name, value in values.items() if value is not None}


Reports = dict[str, SplitReport]


@dataclass(frozen=True)
class DatasetReport:
    """Content and problems of a data set."""

    dataset: AnyDataset
    format: str
    splits: Reports
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...] = ()
    """What is worth a look, but does not prevent training."""

    def to_dict(self) -> dict[str, object]:
        """As plain values for JSON."""
        return {
            "data": str(self.dataset.root),
            "format": self.format,
            "classes": list(self.dataset.classes),
            "splits": {name: split.to_dict() for name, split in self.splits.items()},
            "notes": [_as_dict(note) for note in self.notes],
            "problems": [_as_dict(problem) for problem in self.problems],
        }


def _as_dict(problem: Problem) -> dict[str, str]:
    return {**vars(problem), "path": str(problem.path)}


@dataclass
class TimeLimit:
    """A time for reading files; of what there is no time for, files spread evenly over the whole are read."""

    seconds: float
    files: int
    """Those still to be read."""
    unread: int = 0
    """Those that there was no time for."""
    started: float = field(default_factory=time.monotonic)

    def deadline_for(self, count: int) -> float:
        """Until when `count` of the files may be read: the rest of the time is shared evenly by the files."""
        now = time.monotonic()
        left = max(0.0, self.started + self.seconds - now)
        share = count / max(self.files, count, 1)
        self.files -= count
        return now + left * share


@dataclass(frozen=True)
class FilesReport:
    """What reading the files of a data set found: more than names, headers and annotations show."""

    dataset: AnyDataset
    """With its classes counted if they are not named."""
    splits: Reports
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]


def inspect_dataset(root: Path, request: DataRequest = FOR_TRAINING) -> DatasetReport:
    """Read every file in `root`. Raises DataError only if no format is recognised.

    What is found is remembered for the check before training and evaluation (`cyclemlp.data.checks`).
    """
    found = find_format(root, all_formats())
    findings = Findings(request=request)
    dataset = found.read(root, findings)
    if request.hold_out is not None and not findings.problems:
        dataset = held_out_of(dataset, request.hold_out)
    state = state_of(dataset)
    files = inspect_files(dataset)
    remember(dataset, state, files.problems, files.notes)
    problems = tuple(dict.fromkeys((*findings.problems, *files.problems)))
    notes = tuple(dict.fromkeys((*findings.flaws, *findings.notes, *files.notes)))
    return DatasetReport(files.dataset, found.name, files.splits, problems, notes)


def inspect_files(dataset: AnyDataset, limit: TimeLimit | None = None) -> FilesReport:
    """Read every file that a data set names, or as many as there is time for."""
    findings = Findings()
    notes: list[Problem] = []
    if isinstance(dataset, MaskDataset):
        dataset, splits, notes = _inspect_masks(dataset, findings, limit)
    elif isinstance(dataset, DetectionDataset):
        splits = {name: _inspect_objects(dataset, findings.of(name), limit) for name in dataset.splits}
    else:
        splits, notes = _inspect_classified(dataset, findings, limit)
    named = not isinstance(dataset, MaskDataset) or dataset.named
    if named and (limit is None or not limit.unread):
        notes += _absent_classes(dataset.root, splits)
    notes += [note for name, split in dataset.splits.items() for note in _skipped_files(split.images, name)]
    return FilesReport(dataset, splits, tuple(dict.fromkeys(findings.problems)), (*findings.notes, *notes))


@dataclass(frozen=True)
class _Counted:
    """What was read of one split: `totals` are pixels of each class, `values_in` the values of each mask."""

    images: int
    pixels: int
    totals: Counts
    values_in: dict[Path, MaskValues]


def _inspect_masks(
    dataset: MaskDataset, findings: Findings, limit: TimeLimit | None
) -> tuple[MaskDataset, Reports, list[Problem]]:
    """The data set with its classes counted if they are not named, the counts of each split, and notes."""
    dataset = with_white_class(dataset)
    counted = {name: _count_masks(split, findings.of(name), limit) for name, split in dataset.splits.items()}
    totals: Counts = np.sum([files.totals for files in counted.values()], axis=0)
    highest = int(np.flatnonzero(totals[:IGNORE_INDEX]).max(initial=0))
    classes = dataset.classes if dataset.named else numbered_classes(highest)
    values_in = {path: present for files in counted.values() for path, present in files.values_in.items()}
    for name, files in counted.items():
        findings.problems += _outside(dataset.splits[name], name, files, len(classes))
        findings.notes += transparent_numbers(name, files.values_in)
    findings.problems += other_palettes(values_in)
    findings.problems += grey_levels(dataset, totals)
    if totals.any() and highest == 0:
        findings.problems.append(no_second_class(dataset))
    splits = {}
    for split, files in counted.items():
        class_pixels = {name: int(files.totals[index]) for index, name in enumerate(classes)}
        ignored = int(files.totals[IGNORE_INDEX])
        splits[split] = SplitReport(files.images, files.pixels, "pixels", class_pixels, ignored)
    if any(split.white_class for split in dataset.splits.values()):
        what = f"hold 0 and 255 alone, which are the classes {' and '.join(classes)}"
        findings.notes.append(Problem(masks_folder(dataset), "", what, "name them in classes.txt, in this order"))
    notes = (
        []
        if dataset.named or highest == 0 or "train" not in dataset.splits
        else odd_values(masks_folder(dataset), totals, values_in)
    )
    return replace(dataset, classes=classes), splits, notes


def _outside(split: MaskSplit, name: str, files: _Counted, num_classes: int) -> list[Problem]:
    ignored = split.zero_ignored
    found = (
        outside_classes(path, name, values.present, num_classes, zero_ignored=ignored)
        for path, values in files.values_in.items()
    )
    return [problem for problem in found if problem]


def _count_masks(split: MaskSplit, findings: Findings, limit: TimeLimit | None) -> _Counted:
    images = sorted((*split.images, *split.other_images))
    masks = sorted({*split.masks, *split.other_masks})
    mask_of = dict(zip(split.images, split.masks, strict=True))
    pixels, totals, values_in = 0, np.zeros(256, np.int64), {}
    turned: list[Path] = []
    for path, (size, orientation) in _read_all(_size_and_orientation, images, findings, limit):
        pixels += size[0] * size[1]
        if orientation in SAME_SIZE or (orientation in SIDEWAYS and size[0] == size[1]):
            mask = mask_of.get(path)
            turned += [path] if mask is not None and _orientation(mask) != orientation else []
    findings.notes += turned_within_size(turned, findings.split, "masks are taken to be drawn", "90 or 180")
    for path, values in _read_all(
        partial(values_of, split.zero_ignored, split.white_class), masks, findings, limit, "masks"
    ):
        totals += values.counts
        values_in[path] = values
    return _Counted(len(images), pixels, totals, values_in)


def _inspect_classified(
    dataset: ClassifiedDataset, findings: Findings, limit: TimeLimit | None
) -> tuple[Reports, list[Problem]]:
    """The counts of each split, and notes."""
    seen: dict[bytes, tuple[Path, str, int]] = {}
    splits: Reports = {}
    repeated: list[Problem] = []
    for name, split in dataset.splits.items():
        pixels = 0
        label_of = dict(zip(split.images, split.labels, strict=True))
        for path, (size, digest) in _read_all(_size_and_digest, split.images, findings.of(name), limit):
            pixels += size[0] * size[1]
            first, first_split, first_label = seen.setdefault(digest, (path, name, label_of[path]))
            if (first_split, first_label) != (name, label_of[path]):
                where = "in another class" if first_split == name else f"in {first_split}"
                what = f"is the same file as {first}, {where}"
                repeated.append(Problem(path, name, what, "remove one of the two"))
        labels = np.bincount(np.array(split.labels, np.intp), minlength=len(dataset.classes)).tolist()
        counts = dict(zip(dataset.classes, labels, strict=True))
        splits[name] = SplitReport(len(split.images), pixels, "images", counts)
    if len(repeated) <= MAX_REPEATED * sum(split.images for split in splits.values()):
        return splits, repeated
    findings.problems += repeated
    return splits, []


def _inspect_objects(dataset: DetectionDataset, findings: Findings, limit: TimeLimit | None) -> SplitReport:
    split, classes = dataset.splits[findings.split], dataset.classes
    pixels = 0
    record_of = dict(zip(split.images, split.records, strict=True))
    turned: list[Path] = []
    for path, (size, orientation) in _read_all(_size_and_orientation, split.images, findings, limit):
        pixels += size[0] * size[1]
        turned += [path] if orientation in SAME_SIZE else []
        findings.attempt(partial(check_size, pixels_hw=size, annotated_hw=record_of[path].size), path)
    findings.notes += turned_within_size(turned, findings.split, "objects are taken to be annotated")
    labels = [label for record in split.records for label in record.labels[~record.crowd].tolist()]
    counts = dict(zip(classes, np.bincount(np.array(labels, np.intp), minlength=len(classes)).tolist(), strict=True))
    ignored = sum(int(record.crowd.sum()) for record in split.records)
    empty = sum(not len(record.labels) for record in split.records)
    return SplitReport(len(split.images), pixels, "objects", counts, ignored, empty)


def _size_and_orientation(path: Path) -> tuple[tuple[int, int], int]:
    return _size(path), exif_orientation(path)


def _orientation(path: Path) -> int:
    """1 for a file that cannot be read, which is named elsewhere."""
    try:
        return exif_orientation(path)
    except ImageError:
        return 1


def _size(path: Path) -> tuple[int, int]:
    return decoded_size(path)


def _size_and_digest(path: Path) -> tuple[tuple[int, int], bytes]:
    return _size(path), hashlib.blake2b(path.read_bytes(), digest_size=16).digest()


def _read_all(
    read: Callable[[Path], Result],
    paths: Sequence[Path],
    findings: Findings,
    limit: TimeLimit | None = None,
    what: str = "images",
) -> Iterator[tuple[Path, Result]]:
    """`read` of every usable file on all cores (Pillow decodes without the interpreter's lock), with a progress bar."""

    def attempt(path: Path) -> Result | ImageError:
        try:
            return read(path)
        except ImageError as error:
            return error

    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        # Threads that set and restore filters at the same time could lose the one that read_image sets.
        ignore_harmless_warnings()
        try:
            order = range(len(paths)) if limit is None else _spread(len(paths))
            results = pool.map(attempt, (paths[place] for place in order))
            bar = progress_bar(results, what=f"reading {findings.split} {what}", unit="files", total=len(paths))
            in_order = zip(order, bar, strict=True) if limit is None else _in_time(limit, order, bar)
            for place, found in in_order:
                if isinstance(found, ImageError):
                    findings.add_error(found)
                else:
                    yield paths[place], found
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # otherwise Ctrl-C would wait for every file


def _in_time(limit: TimeLimit, order: Sequence[int], results: Iterable[Result]) -> list[tuple[int, Result]]:
    """The results that come before the time is up, by place; at least one."""
    deadline = limit.deadline_for(len(order))
    found: list[tuple[int, Result]] = []
    for place, result in zip(order, results, strict=True):
        found.append((place, result))
        if time.monotonic() > deadline:
            break
    limit.unread += len(order) - len(found)
    return sorted(found, key=itemgetter(0))


def _spread(count: int) -> list[int]:
    """The places 0 to count - 1 in an order whose beginnings are spread evenly over all of them."""
    golden = (5**0.5 - 1) / 2
    return sorted(range(count), key=lambda place: place * golden % 1)


def _absent_classes(root: Path, splits: Reports) -> list[Problem]:
    """The classes that training never meets, as one note."""
    train = splits.get("train")
    absent = [] if train is None else [name for name, count in train.of_class.items() if not count]
    if train is None or not absent or len(absent) == len(train.of_class):
        return []
    what = (
        f"has no {train.unit} of {listed(absent)} in train, so {'it' if len(absent) == 1 else 'they'} cannot be learnt"
    )
    return [Problem(root, "train", what, "label some, or remove what is not needed from the classes")]


def _skipped_files(images: Iterable[Path], split: str) -> list[Problem]:
    """The files next to the images of a split that are not read as images, as one note."""
    folders = sorted({path.parent for path in images})
    others = [path for folder in folders for path in sorted(entries_of(folder)) if _is_skipped(path)]
    if not others:
        return []
    further = {1: "is", 2: "and another file are"}.get(len(others), f"and {len(others) - 1} other files are")
    what = f"{further} skipped because images have one of the suffixes {', '.join(sorted(IMAGE_SUFFIXES))}"
    return [Problem(others[0], split, what, "convert what is an image to JPEG or PNG")]


def _is_skipped(path: Path) -> bool:
    if path.name.startswith(".") or is_system(path.name):
        return False
    return path.is_file() and path.suffix.lower() not in IMAGE_SUFFIXES | _COMPANIONS
