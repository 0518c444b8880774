"""What the formats of object annotations share: how the objects that a file lists become the record of an image."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from cyclemlp.data.images import image_size
from cyclemlp.data.objects import DetectionSplit, Record
from cyclemlp.data.outlines import Outline
from cyclemlp.data.problems import Findings, Problem
from cyclemlp.errors import DataError

# Coordinates are rounded in many files; less than this beyond the edge is not a mistake.
_SLACK = 1.0

Raw = TypeVar("Raw")
Size = tuple[int, int]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class LabelledImage(Generic[Raw]):
    """An image and what an annotation file says about it."""

    image: Path
    file: Path
    objects: Sequence[tuple[str, Raw]]
    """How a message refers to each object, and the object as the file has it."""
    size: Size | None = None
    """(height, width), if the file has it."""
    image_id: int | None = None
    """Counted from 1 if the file has none."""


@dataclass(frozen=True, eq=False)
class ParsedObject:
    """One annotated object; the area follows from the box if the file does not have it."""

    box_xyxy: Box
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


def read_objects(
    images: Iterable[LabelledImage[Raw]],
    parse: Callable[[Raw, Size], ParsedObject],
    findings: Findings,
    annotations: Path | None = None,
) -> DetectionSplit:
    """The split of these images; `parse` makes an object of an image of that size, or raises WrongObjectError.

    Boxes are cut to their image, and objects without area are left out; both are flaws. Images whose size cannot be
    read are problems, as are objects that cannot be parsed.
    """
    paths, records = [], []
    for number, labelled in enumerate(images, start=1):
        size = labelled.size or findings.attempt(image_size, labelled.image)
        if size is not None:
            paths.append(labelled.image)
            image_id = number if labelled.image_id is None else labelled.image_id
            records.append(_record(image_id, size, _sound_objects(labelled, size, parse, findings)))
    return DetectionSplit(tuple(paths), tuple(records), annotations)


def _sound_objects(
    labelled: LabelledImage[Raw], size: Size, parse: Callable[[Raw, Size], ParsedObject], findings: Findings
) -> list[tuple[ParsedObject, Box]]:
    """The objects and their boxes cut to the image."""
    sound: list[tuple[ParsedObject, Box]] = []
    height, width = size
    for name, raw in labelled.objects:
        try:
            item = parse(raw, size)
        except WrongObjectError as error:
            findings.add(labelled.file, f"{name} {error.what}", error.fix)
            continue
        left, top, right, bottom = item.box_xyxy
        cut = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
        # As float32, the type they are kept in, a box may be flat that was not before.
        has_area = bool(np.float32(cut[2]) > np.float32(cut[0]) and np.float32(cut[3]) > np.float32(cut[1]))
        if wrong := _what_is_wrong(item.box_xyxy, cut, has_area, size):
            fix = "the box is cut to the image" if has_area else "the object is left out"
            flaw = Problem(labelled.file, findings.split, f"{name} {wrong}", f"{fix}; correct or remove it")
            findings.flaws.append(flaw)
        if has_area:
            sound.append((item, cut))
    return sound


def _what_is_wrong(box: Box, cut: Box, has_area: bool, size: Size) -> str | None:
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


def _record(image_id: int, size: Size, objects: Sequence[tuple[ParsedObject, Box]]) -> Record:
    items = [item for item, _ in objects]
    boxes_xyxy = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
    of_boxes = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).astype(np.float64).prod(axis=1)
    areas = [area if item.area is None else item.area for item, area in zip(items, of_boxes, strict=True)]
    return Record(
        image_id=image_id,
        size=size,
        boxes_xyxy=boxes_xyxy,
        labels=np.array([item.label for item in items], np.int64),
        crowd=np.array([item.crowd for item in items], np.bool_),
        areas=np.array(areas, np.float64),
        segmentations=tuple(item.outline for item in items),
    )
