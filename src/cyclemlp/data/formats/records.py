"""What the formats of object annotations share: how annotated objects become records, and how files are found."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cyclemlp.data.images import ImageError, image_size
from cyclemlp.data.objects import Record
from cyclemlp.data.outlines import Outline
from cyclemlp.data.problems import Findings, Problem
from cyclemlp.errors import DataError

# Coordinates are rounded in many files; less than this beyond the edge is not a mistake.
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


class WrongObjectError(DataError):
    """An annotated object is unusable; `what` and `fix` name neither the file nor the object."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}; {fix}")
        self.what = what
        self.fix = fix


@dataclass(frozen=True)
class AnnotationFile:
    """A file of annotations, what it is about, and where its problems go."""

    path: Path
    split: str
    findings: Findings

    def add(self, what: str, fix: str) -> None:
        """Add a problem of this file."""
        self.findings.add(self.path, self.split, what, fix)

    def record(self, image_id: int, size: tuple[int, int], objects: Sequence[RawObject]) -> Record:
        """The record of an image: boxes cut to it, those without area dropped; both are flaws."""
        kept: list[RawObject] = []
        boxes: list[tuple[float, ...]] = []
        height, width = size
        for item in objects:
            left, top, right, bottom = item.box_xyxy
            cut = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
            # As float32, the type they are kept in, a box may be flat that was not before.
            has_area = bool(np.float32(cut[2]) > np.float32(cut[0]) and np.float32(cut[3]) > np.float32(cut[1]))
            if wrong := _what_is_wrong(item.box_xyxy, cut, has_area, size):
                fix = "the box is cut to the image" if has_area else "the object is left out"
                flaw = Problem(self.path, self.split, f"{item.name} {wrong}", f"{fix}; correct or remove it")
                self.findings.flaws.append(flaw)
            if has_area:
                kept.append(item)
                boxes.append(cut)
        return _record(image_id, size, kept, boxes)


def folder_of_split(parent: Path, split: str) -> Path:
    """The folder of a split, under whichever usual name it has there; by default under the split's own."""
    names = {"val": ("val", "valid", "validation")}.get(split, (split,))
    return next((parent / name for name in names if (parent / name).is_dir()), parent / split)


def without_shared_names(images: Sequence[Path], split: str, findings: Findings) -> list[Path]:
    """The images without those that share all of their path but the suffix, each of which is a problem."""
    count = Counter(path.with_suffix("") for path in images)
    kept = []
    for path in images:
        if count[path.with_suffix("")] == 1:
            kept.append(path)
        else:
            findings.add(path, split, "shares its name with another image", "rename one of them")
    return kept


def header_size(path: Path, split: str, findings: Findings) -> tuple[int, int] | None:
    """(height, width) as the image's header has it; None, and a problem, if it cannot be read."""
    try:
        return image_size(path)
    except ImageError as error:
        findings.add_error(error, split)
        return None


def add_missing_split(folder: Path, split: str, findings: Findings) -> None:
    """Add the problem that a split has no folder or file."""
    fix = f"put the images of the {split} split there"
    if split == "val":
        fix = "move about every fifth training image and its annotations there"
    findings.add(folder, split, "is missing", fix)


def _what_is_wrong(box: tuple[float, ...], cut: tuple[float, ...], has_area: bool, size: tuple[int, int]) -> str | None:
    left, top, right, bottom = box
    shown = f"({left:g}, {top:g}, {right:g}, {bottom:g})"
    if not np.isfinite(box).all():
        return f"has the box {shown}, which is not a box"
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
