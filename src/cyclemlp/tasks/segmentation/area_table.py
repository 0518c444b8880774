"""For the report: the area of each class on validation images that lie somewhere on the Earth, with its interval."""

from collections.abc import Sequence
from pathlib import Path

from cyclemlp.data.scenes import pixel_area
from cyclemlp.tasks.score_text import ScoreTable
from cyclemlp.tasks.segmentation.areas import SQUARE_METRES, ValidationCounts, in_hectares

_SAME_SIZE = 1.01
"""Ratio of the largest to the smallest pixel, in square metres, up to which all count as equal."""
_HEAD = ("class", "predicted", "corrected", "95 % interval")


def area_tables(images: Sequence[Path], counts: ValidationCounts | None, classes: Sequence[str]) -> list[ScoreTable]:
    """A table of the areas of all classes on images whose pixels have an area, and the same one; else none."""
    known = None if counts is None else common_pixel_area(images)
    if counts is None or known is None:
        return []
    pixels = counts.confusion.sum(axis=0).astype(int).tolist()
    hectares = sum(pixels) * known / SQUARE_METRES
    unit, factor = ("ha", 1) if hectares >= 1 else ("m²", SQUARE_METRES)
    mapped = [_shown(count * known / SQUARE_METRES * factor) for count in pixels]
    areas = in_hectares(counts.areas(pixels, classes), sum(pixels), known)
    title = f"area of the labelled pixels of the validation images, in {unit}"
    if "reason" in areas:
        title += f"; it is not corrected: {areas['reason']}"
        return [ScoreTable(title, _HEAD[:2], list(zip(classes, mapped, strict=True)))]
    units = f"{areas['units']} independent units"
    title += f"; corrected by the errors on these images, as predict does for a scene ({units})"
    rows: list[tuple[str, ...]] = [
        (
            name,
            predicted,
            _shown(area["hectares"] * factor),
            f"{_shown(area['hectares_low'] * factor)} to {_shown(area['hectares_high'] * factor)}",
        )
        for predicted, (name, area) in zip(mapped, areas["classes"].items(), strict=True)
    ]
    return [ScoreTable(title, _HEAD, rows)]


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


def _shown(area: float) -> str:
    return f"{area:.4g}"
