"""One object as an annotation file has it: what the formats of object annotations make of a line or an entry."""

from dataclasses import dataclass

from cyclemlp.data.image_errors import MAX_PIXELS
from cyclemlp.data.outlines import Outline
from cyclemlp.documents import shown, whole_number
from cyclemlp.errors import DataError

SLACK = 1.0
"""Coordinates are rounded in many files; fewer pixels than this beyond the edge are not a mistake."""

Size = tuple[int, int]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class ParsedObject:
    """One annotated object; the area is that of the outline, or else of the box, if the file does not have it."""

    box_xyxy: Box
    label: int
    crowd: bool = False
    area: float | None = None
    outline: Outline | None = None
    boxes_misread: tuple[Box, ...] = ()
    """The box if its four numbers meant what others take them for, in each other way; see `Misreading`."""


class WrongObjectError(DataError):
    """An annotated object is unusable; `what` and `fix` name neither the file nor the object."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}; {fix}")
        self.what = what
        self.fix = fix


def flag(value: object, name: str) -> bool:
    """A mark of an object that is 0 or 1, however it is written; no mark is 0. Raises WrongObjectError."""
    text = "" if value is None else str(value).strip().lower() if isinstance(value, str | bool) else value
    if text in (0, "", "0", "false", "no"):
        return False
    if text in (1, "1", "true", "yes"):
        return True
    raise WrongObjectError(f"has {name} {shown(value)}", "write 0 or 1")


def noted_size(height: object, width: object) -> Size | None:
    """The (height, width) of an image that an annotation file names; None where it has none, or 0.

    Raises WrongObjectError for anything else.
    """
    edges = [0 if each in (None, "") else whole_number(each) for each in (height, width)]
    if edges[0] == 0 or edges[1] == 0:
        return None
    if edges[0] is None or edges[1] is None or min(edges[0], edges[1]) < 0 or edges[0] * edges[1] > MAX_PIXELS:
        what = f"has the size {shown(width)} x {shown(height)} (width x height)"
        raise WrongObjectError(what, "write the width and height of the image in pixels")
    return edges[0], edges[1]


def cut_box(box_xyxy: Box, size: Size) -> Box:
    """The part of a box in an image of `size` (height, width); without area where there is none."""
    left, top, right, bottom = box_xyxy
    return max(left, 0.0), max(top, 0.0), min(right, float(size[1])), min(bottom, float(size[0]))


def show_box(box_xyxy: Box) -> str:
    """For a message."""
    return f"({', '.join(f'{value:g}' for value in box_xyxy)})"


def overlap(one_xyxy: Box, other_xyxy: Box) -> float:
    """Intersection over union of two boxes; 0 where one is flat."""
    left, top = max(one_xyxy[0], other_xyxy[0]), max(one_xyxy[1], other_xyxy[1])
    right, bottom = min(one_xyxy[2], other_xyxy[2]), min(one_xyxy[3], other_xyxy[3])
    common = max(0.0, right - left) * max(0.0, bottom - top)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one_xyxy, other_xyxy))
    return common / max(sum(areas) - common, 1e-9)
