"""What is in a data set, and everything that is wrong with it: every file is decoded."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from cyclemlp.data.check_cache import remember, state_of
from cyclemlp.data.chosen_classes import in_words, reports_of, with_classes
from cyclemlp.data.class_choice import ClassChoice
from cyclemlp.data.datasets import ClassifiedDataset
from cyclemlp.data.file_reports import Reports, SplitReport, TimeLimit, read_all, size_and_orientation
from cyclemlp.data.folders import entries_of, is_system
from cyclemlp.data.formats.registry import FOR_TRAINING, AnyDataset, all_formats, find_format
from cyclemlp.data.ground_neighbours import neighbours_on_the_ground
from cyclemlp.data.held_out import hold_out
from cyclemlp.data.images import IMAGE_SUFFIXES, SAME_SIZE, SIDEWAYS
from cyclemlp.data.inspect_masks import inspect_masks
from cyclemlp.data.mask_values import turned_within_size
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.objects import DetectionDataset, check_size
from cyclemlp.data.problems import DataRequest, Findings, Problem, listed
from cyclemlp.data.rasters import decoded_size
from cyclemlp.data.repeated_images import repeated_in_val
from cyclemlp.data.understood import splits_in_words, understanding
from cyclemlp.errors import DataError

MAX_REPEATED = 1e-3
"""Share of the images that may be in two classes or splits: large collections have a few such, ImageNet among them."""
_COMPANIONS = frozenset({".xml", ".txt", ".json", ".csv", ".tsv", ".yaml", ".yml"})
"""Suffixes of labels and of lists, which may be next to images."""


@dataclass(frozen=True)
class DatasetReport:
    """Content and problems of a data set."""

    dataset: AnyDataset
    format: str
    splits: Reports
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...] = ()
    """What is worth a look, but does not prevent training."""
    read_as: Mapping[str, str] = field(default_factory=dict)
    """Of data without problems: how they were understood, by `pairs` and `classes` of masks and `splits`; and which
    classes are chosen."""

    def to_dict(self) -> dict[str, object]:
        """As plain values for JSON."""
        return {
            "data": str(self.dataset.root),
            "format": self.format,
            "classes": list(self.dataset.classes),
            **({"read_as": dict(self.read_as)} if self.read_as else {}),
            "splits": {name: split.to_dict() for name, split in self.splits.items()},
            "notes": [_as_dict(note) for note in self.notes],
            "problems": [_as_dict(problem) for problem in self.problems],
        }


def _as_dict(problem: Problem) -> dict[str, str]:
    return {**vars(problem), "path": str(problem.path)}


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
        dataset = hold_out(dataset, request.hold_out)
    if request.palette is not None and not isinstance(dataset, MaskDataset):
        raise DataError(f"--palette is for masks, and {dataset.root} has other labels: leave it out")
    choice, chosen_as = request.choice or ClassChoice(), {}
    if choice and not isinstance(dataset, MaskDataset):
        chosen_as = {"chosen": in_words(dataset, choice)}
        dataset = with_classes(dataset, choice)
    state = state_of(dataset)
    files = inspect_files(dataset)
    remember(dataset, state, files.problems, files.notes)
    problems = tuple(dict.fromkeys((*findings.problems, *files.problems)))
    notes = tuple(dict.fromkeys((*findings.flaws, *findings.notes, *files.notes)))
    read_as = {}
    if isinstance(files.dataset, MaskDataset) and not problems:
        read_as = understanding(files.dataset, found.pairing or found.layout, request)
    elif request.hold_out is not None and not problems:
        read_as = {"splits": splits_in_words(files.dataset.splits, request.hold_out)}
    if choice and isinstance(files.dataset, MaskDataset):
        chosen_as = {"chosen": in_words(files.dataset, choice)}
        splits = reports_of(files.splits, files.dataset, choice)
        files = replace(files, dataset=with_classes(files.dataset, choice), splits=splits)
    return DatasetReport(files.dataset, found.name, files.splits, problems, notes, read_as | chosen_as)


def inspect_files(dataset: AnyDataset, limit: TimeLimit | None = None) -> FilesReport:
    """Read every file that a data set names, or as many as there is time for."""
    findings = Findings()
    notes: list[Problem] = []
    if isinstance(dataset, MaskDataset):
        dataset, splits, notes = inspect_masks(dataset, findings, limit)
    elif isinstance(dataset, DetectionDataset):
        splits = {name: _inspect_objects(dataset, findings.of(name), limit) for name in dataset.splits}
    else:
        splits, notes = _inspect_classified(dataset, findings, limit)
    if limit is None or not limit.unread:
        notes += _absent_classes(dataset.root, splits, counted=isinstance(dataset, MaskDataset) and not dataset.named)
    notes += _similar_names(dataset.root, dataset.classes)
    if not any(split.part for split in dataset.splits.values()):
        images = {name: split.images for name, split in dataset.splits.items()}
        near = neighbours_on_the_ground(images)
        # Images of classes are compared among classes as well.
        notes += near or ([] if isinstance(dataset, ClassifiedDataset) else repeated_in_val(images))
    notes += [note for name, split in dataset.splits.items() for note in _skipped_files(split.images, name)]
    return FilesReport(dataset, splits, tuple(dict.fromkeys(findings.problems)), (*findings.notes, *notes))


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
        for path, (size, digest) in read_all(_size_and_digest, split.images, findings.of(name), limit):
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
    degrees = "180"
    for path, (size, orientation) in read_all(size_and_orientation, split.images, findings, limit):
        pixels += size[0] * size[1]
        record = record_of[path]
        sideways = orientation in SIDEWAYS and (size[0] == size[1] or not record.size_noted)
        turned += [path] if sideways or orientation in SAME_SIZE else []
        degrees = "90 or 180" if sideways else degrees
        findings.attempt(partial(check_size, pixels_hw=size, annotated_hw=record.size), path)
    findings.notes += turned_within_size(turned, findings.split, "objects are taken to be annotated", degrees)
    labels = [label for record in split.records for label in record.labels[~record.crowd].tolist()]
    counts = dict(zip(classes, np.bincount(np.array(labels, np.intp), minlength=len(classes)).tolist(), strict=True))
    ignored = sum(int(record.crowd.sum()) for record in split.records)
    empty = sum(not len(record.labels) for record in split.records)
    return SplitReport(len(split.images), pixels, "objects", counts, ignored, empty)


def _size_and_digest(path: Path) -> tuple[tuple[int, int], bytes]:
    return decoded_size(path), hashlib.blake2b(path.read_bytes(), digest_size=16).digest()


def _absent_classes(root: Path, splits: Reports, *, counted: bool) -> list[Problem]:
    """The classes that training never meets, and those it learns that are never scored, as a note each.

    Classes that are `counted`, and have no names, are those that occur; numbers between them have a note of their own.
    """
    train, val = splits.get("train"), splits.get("val")
    known = {name for split in splits.values() for name, count in split.of_class.items() if count or not counted}
    unlearnt = [] if train is None else [name for name, count in train.of_class.items() if not count and name in known]
    if train is None or len(unlearnt) == len(train.of_class):
        return []
    notes = []
    if unlearnt:
        they = "it" if len(unlearnt) == 1 else "they"
        what = f"has no {train.unit} of {listed(unlearnt)} in train, so {they} cannot be learnt"
        notes.append(Problem(root, "train", what, "label some, or remove what is not needed from the classes"))
    unscored = [] if val is None else [name for name, count in val.of_class.items() if not count]
    unscored = [name for name in unscored if name in known and name not in unlearnt]
    if val is not None and unscored and len(unscored) < len(val.of_class):
        they = "it is" if len(unscored) == 1 else "they are"
        what = f"has no {val.unit} of {listed(unscored)} in val, so {they} not scored"
        notes.append(Problem(root, "val", what, "move or label some there"))
    return notes


def _similar_names(root: Path, classes: Sequence[str]) -> list[Problem]:
    """Classes whose names differ in capitals, spaces and punctuation alone, as one note."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        letters = "".join(character for character in name.casefold() if character.isalnum())
        alike.setdefault(letters or name, []).append(name)
    twice = next((names for names in alike.values() if len(names) > 1), None)
    if twice is None:
        return []
    what = f"has classes with nearly the same name: {listed([repr(name) for name in twice])}"
    return [Problem(root, "", what, "if they are one, correct the names, or join them with --merge")]


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
