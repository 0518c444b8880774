"""What every format of object annotations is checked for, and how its objects become a record."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cyclemlp.data.detection import DetectionDataset, Record
from cyclemlp.data.images import ImageError, image_size
from cyclemlp.data.instance_masks import Outline
from cyclemlp.data.problems import Problem, first_of
from cyclemlp.errors import DataError

_LOG = logging.getLogger(__name__)

# Coordinates are rounded in many files; less than this beyond the edge is no mistake.
_SLACK = 1.0


@dataclass(frozen=True, eq=False)
class RawObject:
    """One annotated object as its file has it; `name` is how a message refers to it."""

    name: str
    box_xyxy: tuple[float, float, float, float]
    label: int
    crowd: bool = False
    area: float | None = None
    outline: Outline | None = None


@dataclass
class Survey:
    """A data set and what is wrong with it."""

    dataset: DetectionDataset
    problems: list[Problem] = field(default_factory=list)
    """What training cannot go on with."""
    flaws: list[Problem] = field(default_factory=list)
    """Single objects that are left out or cut to the picture; training goes on without them."""


def make_record(
    image_id: int, size: tuple[int, int], objects: Sequence[RawObject], where: Path, split: str
) -> tuple[Record, list[Problem]]:
    """The record of a picture: boxes cut to it, those without area dropped; and what was found wrong with them.

    `where` is the file that a message names.
    """
    flaws: list[Problem] = []
    kept: list[RawObject] = []
    boxes: list[tuple[float, ...]] = []
    height, width = size
    for item in objects:
        left, top, right, bottom = item.box_xyxy
        cut = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
        # As float32, the type they are kept in, a box may be flat that was not before.
        has_area = np.float32(cut[2]) > np.float32(cut[0]) and np.float32(cut[3]) > np.float32(cut[1])
        if wrong := _what_is_wrong(item.box_xyxy, cut, bool(has_area), size):
            fix = "the box is cut to the image" if has_area else "the object is left out"
            flaws.append(Problem(where, split, f"{item.name} {wrong}", f"{fix}; correct or remove it"))
        if has_area:
            kept.append(item)
            boxes.append(cut)
    return _record(image_id, size, kept, boxes), flaws


def finish(survey: Survey) -> DetectionDataset:
    """The data set, where nothing is wrong that training cannot go on with; single flaws are logged in one line.

    Raises DataError for the first problem, with the number of further ones.
    """
    root = survey.dataset.root
    if survey.problems:
        raise DataError(first_of(survey.problems, root))
    if survey.flaws:
        count = len(survey.flaws)
        boxes = "1 box is" if count == 1 else f"{count} boxes are"
        _LOG.warning("%s: %s cut to the image or left out (cyclemlp data %s lists them)", root, boxes, root)
    return survey.dataset


class WrongObjectError(DataError):
    """An annotated object is not usable; `what` and `fix` are without file and object."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}; {fix}")
        self.what = what
        self.fix = fix


def folder_of_split(parent: Path, split: str) -> Path:
    """The folder of a split, under the name it has there; under its own where there is none."""
    names = {"val": ("val", "valid", "validation")}.get(split, (split,))
    return next((parent / name for name in names if (parent / name).is_dir()), parent / split)


def refuse_shared_names(images: Sequence[Path], split: str) -> tuple[list[Path], list[Problem]]:
    """The pictures without those that others share all of their path but the suffix with, and a problem for each."""
    count = Counter(path.with_suffix("") for path in images)
    shared = [path for path in images if count[path.with_suffix("")] > 1]
    problems = [Problem(path, split, "shares its name with another image", "rename one of them") for path in shared]
    return [path for path in images if path not in set(shared)], problems


def header_size(path: Path, split: str, problems: list[Problem]) -> tuple[int, int] | None:
    """(height, width) as the picture's header has it; None, and a further problem, where it cannot be read."""
    try:
        return image_size(path)
    except ImageError as error:
        problems.append(Problem(path, split, error.what, error.fix))
        return None


def missing_split(folder: Path, split: str) -> Problem:
    """The problem that a split has no folder or file."""
    fix = f"put the images of the {split} split there"
    if split == "val":
        fix = "move about every fifth training image and its annotations there"
    return Problem(folder, split, "is missing", fix)


def _what_is_wrong(box: tuple[float, ...], cut: tuple[float, ...], has_area: bool, size: tuple[int, int]) -> str | None:
    left, top, right, bottom = box
    shown = f"({left:g}, {top:g}, {right:g}, {bottom:g})"
    if not np.isfinite(box).all():
        return f"has the box {shown}, which is no box"
    if right <= left or bottom <= top:
        return f"has the box {shown} without area"
    if not has_area:
        return f"has the box {shown} outside the image of {size[1]}x{size[0]}"
    if max(abs(before - after) for before, after in zip(box, cut, strict=True)) > _SLACK:
        return f"has the box {shown}, partly outside the image of {size[1]}x{size[0]}"
    return None


def _record(
    image_id: int, size: tuple[int, int], kept: Sequence[RawObject], boxes: Sequence[tuple[float, ...]]
) -> Record:
    boxes_xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).astype(np.float64)
    areas = [side.prod() if item.area is None else item.area for item, side in zip(kept, sides, strict=True)]
    return Record(
        image_id=image_id,
        size=size,
        boxes_xyxy=boxes_xyxy,
        labels=np.array([item.label for item in kept], np.int64),
        crowd=np.array([item.crowd for item in kept], np.bool_),
        areas=np.array(areas, np.float64),
        segmentations=tuple(item.outline for item in kept),
    )
