"""For the report: the area of each class on validation images that lie somewhere on the Earth, predicted and labelled.

Areas that are corrected by the errors on these very images would be the labelled ones, whatever the network: they are
estimated for scenes without labels.
"""

from collections.abc import Sequence
from pathlib import Path

from cyclemlp.data.scenes import pixel_area
from cyclemlp.tasks.score_text import ScoreTable
from cyclemlp.tasks.segmentation.areas import SQUARE_METRES, ValidationCounts

_SAME_SIZE = 1.01
"""Ratio of the largest to the smallest pixel, in square metres, up to which all count as equal."""
_HEAD = ("class", "predicted", "labelled", "difference")


def area_tables(images: Sequence[Path], counts: ValidationCounts | None, classes: Sequence[str]) -> list[ScoreTable]:
    """A table of the areas of all classes on images whose pixels have an area, and the same one; else none."""
    known = None if counts is None else common_pixel_area(images)
    if counts is None or known is None:
        return []
    hectares = counts.confusion * (known / SQUARE_METRES)
    unit, factor = ("ha", 1) if hectares.sum() >= 1 else ("m²", SQUARE_METRES)
    predicted, labelled = (hectares.sum(axis=axis) * factor for axis in (0, 1))
    rows: list[tuple[str, ...]] = [
        (name, f"{found:.4g}", f"{true:.4g}", f"{found - true:+.4g}")
        for name, found, true in zip(classes, predicted.tolist(), labelled.tolist(), strict=True)
    ]
    return [ScoreTable(f"area of each class on the labelled pixels of the validation images, in {unit}", _HEAD, rows)]


def common_pixel_area(images: Sequence[Path]) -> float | None:
    """Square metres of a pixel of these images; None where one does not say it, or they differ."""
    smallest, largest = float("inf"), 0.0
    for path in images:
        area = pixel_area(path)
        if area is None:
            return None
        smallest, largest = min(smallest, area), max(largest, area)
        if largest > smallest * _SAME_SIZE:
            return None
    return (smallest + largest) / 2 if largest else None
