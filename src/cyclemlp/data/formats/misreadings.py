"""Boxes that cannot mean what their format says: far from their outlines, or in other numbers than the format has."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from cyclemlp.data.formats.parsed_objects import (
    SLACK,
    Box,
    ParsedObject,
    Size,
    WrongObjectError,
    cut_box,
    overlap,
    show_box,
)
from cyclemlp.data.outlines import extent_of, has_ring_inside

FAR = 0.2
"""Overlap (intersection over union) of a box and the extent of its outline below which they contradict each other."""
NEAR = 0.9
"""Overlap from which on a box is that of its outline."""
MANY = 0.3
"""Share of the boxes of a split that have to be impossible as they are read."""
_SOME, _FEWEST = 0.05, 5
"""The same, and their number, for readings by which boxes are only moved or turned: some then stay possible."""
_ENOUGH, _QUARTER = 30, 0.5
"""So many boxes lie in the upper left quarters of their images, half as wide and high, if they are in other units."""
_FEW_PIXELS = 8
"""Images with larger edges have objects beyond their first pixel."""


def check_outline(item: ParsedObject, size: Size) -> None:
    """Raise WrongObjectError where the box of an object lies nowhere near its outline."""
    if item.outline is None:
        return
    extent = extent_of(item.outline, size)
    if extent is None:
        raise WrongObjectError("has an outline without a pixel in its image", "correct or remove it")
    if _agreement(item.box_xyxy, extent, size) < FAR:
        what = f"has the box {show_box(item.box_xyxy)}, but its outline spans {show_box(extent)}"
        raise WrongObjectError(what, "correct one of the two")


@dataclass
class Misreading:
    """Counts, over the objects of a split, what speaks for another meaning of the four numbers of a box."""

    objects: int = 0
    impossible: int = 0
    """Boxes that reach beyond their image, have no area, or contradict their outline or area, as they are read."""
    fit_otherwise: list[bool] = field(default_factory=list)
    """Whether each other reading has all boxes within their images, in agreement with outlines and areas."""
    in_first_pixel: bool = True
    """Whether all boxes lie in the first pixel of their images, as shares of the width and height would."""
    filled: int = 0
    """Objects with an outline inside another of theirs."""
    reach: float = 0.0
    """The most that a right or lower edge lies from the upper left corner, in widths and heights of its image."""

    def add(self, item: ParsedObject, size: Size) -> None:
        """Count one object."""
        self.objects += 1
        right, bottom = item.box_xyxy[2:]
        self.in_first_pixel &= max(right, bottom) <= 1.0 + 1e-3 and min(size) > _FEW_PIXELS
        self.in_first_pixel &= not all(value.is_integer() for value in item.box_xyxy)
        self.reach = max(self.reach, right / size[1], bottom / size[0])
        self.filled += item.outline is not None and has_ring_inside(item.outline)
        others = item.boxes_misread
        self.fit_otherwise = [
            fits and place < len(others) and _fits(others[place], item, size)
            for place, fits in enumerate(self.fit_otherwise)
        ]
        if any(self.fit_otherwise):
            self.impossible += not _fits(item.box_xyxy, item, size, slack=SLACK + 0.02 * max(size))

    def what(self, right: str, *wrong: str) -> tuple[str, str] | None:
        """What is wrong with the boxes and how to correct it; `right` and `wrong` name the ways to read them."""
        if self.objects and self.in_first_pixel:
            what = "has no box beyond the first pixel of an image, as if they were shares of its width and height"
            return what, "write pixels"
        for place, name in enumerate(wrong):
            enough = max(_FEWEST, _SOME * self.objects) if place else MANY * self.objects
            if self.objects and self.fit_otherwise[place] and self.impossible >= enough:
                return f"has boxes that fit their images only as {name}", f"write {right}"
        return None

    def notes(self) -> Iterator[tuple[str, str]]:
        """What makes the objects doubtful, though each of them is possible, and what to do about it."""
        if self.objects >= _ENOUGH and self.reach <= _QUARTER:
            what = f"has {self.objects} boxes, none of which reaches beyond the upper left quarter of its image"
            yield what, "if they are percent, or pixels of smaller images, correct them; --sheet draws them"
        if self.filled:
            what = f"has {self.filled} objects with an outline inside another of theirs, which does not make a hole"
            yield what, "write objects with holes as RLE"


def _fits(box: Box, item: ParsedObject, size: Size, slack: float = SLACK) -> bool:
    left, top, right, bottom = box
    if not (left >= -slack and top >= -slack and right <= size[1] + slack and bottom <= size[0] + slack):
        return False
    if right <= left or bottom <= top:
        return False
    if item.outline is not None:
        extent = extent_of(item.outline, size)
        return extent is not None and _agreement(box, extent, size) >= NEAR
    return item.area is None or abs(item.area - (right - left) * (bottom - top)) <= 0.05 * abs(item.area)


def _agreement(box: Box, extent: Box, size: Size) -> float:
    """Overlap of a box and an extent within the image, with half a pixel more on each side for what rounding did."""
    return overlap(*(_widened(cut_box(each, size)) for each in (box, extent)))


def _widened(box: Box) -> Box:
    return box[0] - 0.5, box[1] - 0.5, box[2] + 0.5, box[3] + 0.5
