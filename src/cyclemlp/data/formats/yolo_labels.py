"""One label file of YOLO's: a line for each object, `class cx cy width height` or `class x1 y1 x2 y2 x3 y3 ...`.

Lengths are shares of the image's width and height, positions are relative to its upper left corner. A line of three or
more points is an outline; its box is the smallest around them.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cyclemlp.data.formats.records import AnnotationFile, RawObject, WrongObjectError
from cyclemlp.data.outlines import Polygons

_BOX_VALUES = 5
_MIN_OUTLINE_VALUES = 7
# Shares written with few digits may lie a little beyond the edge; the box is then cut to the image.
_SLACK = 0.01


class LabelRules(NamedTuple):
    """What the classes of a label file may be."""

    num_classes: int
    names_file: str
    """Which file names them, for a message."""


def read_labels(file: AnnotationFile, size: tuple[int, int], rules: LabelRules) -> list[RawObject]:
    """The objects of an image of `size` (height, width); none without a file. Wrong lines are problems."""
    if not file.path.is_file():
        return []
    objects: list[RawObject] = []
    for number, line in enumerate(file.path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        name = f"line {number}"
        try:
            objects.append(_parse(name, line, size, rules))
        except WrongObjectError as error:
            file.add(f"{name} {error.what}", error.fix)
    return objects


def _parse(name: str, line: str, size: tuple[int, int], rules: LabelRules) -> RawObject:
    label, *values = _numbers(line)
    _check_class(label, rules)
    wrong = [value for value in values if not -_SLACK <= value <= 1 + _SLACK]
    if wrong:
        fix = "write shares of the image's width and height"
        raise WrongObjectError(f"has the value {wrong[0]:g}, outside 0 to 1", fix)
    height, width = size
    if len(values) == _BOX_VALUES - 1:
        cx, cy, w, h = values
        box = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
        return RawObject(name, box, int(label))
    points = np.array(values).reshape(-1, 2) * (width, height)
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    outline = Polygons((points.ravel(),))
    return RawObject(name, (left, top, right, bottom), int(label), area=_area(points), outline=outline)


def _numbers(line: str) -> list[float]:
    fields = line.split()
    if len(fields) != _BOX_VALUES and (len(fields) < _MIN_OUTLINE_VALUES or len(fields) % 2 == 0):
        values = "1 value" if len(fields) == 1 else f"{len(fields)} values"
        fix = "write class cx cy width height, or class and three or more points x y"
        raise WrongObjectError(f"has {values}", fix)
    numbers = []
    for text in fields:
        try:
            numbers.append(float(text))
        except ValueError as error:
            raise WrongObjectError(f"has {text!r}, which is not a number", "correct or remove the line") from error
        if not math.isfinite(numbers[-1]):
            raise WrongObjectError(f"has {text!r}, which is not a finite number", "correct or remove the line")
    return numbers


def _check_class(label: float, rules: LabelRules) -> None:
    if label < 0 or not label.is_integer():
        raise WrongObjectError(f"has the class {label:g}", "write a whole number from 0 on")
    if label >= rules.num_classes:
        last = rules.num_classes - 1
        fix = f"correct it, or name the class in {rules.names_file}"
        raise WrongObjectError(f"has the class {label:.0f}, the names go from 0 to {last}", fix)


def _area(points: npt.NDArray[np.float64]) -> float:
    """Of the polygon through the points (N, 2), by the shoelace formula."""
    x, y = points.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
