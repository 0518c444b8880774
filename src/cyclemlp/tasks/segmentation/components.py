"""Objects from a mask: the connected pixels of a class, counted and measured."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cyclemlp.errors import MissingExtraError
from cyclemlp.files import JsonObject

COLUMNS = ("class", "area", "centroid_x", "centroid_y", "left", "top", "right", "bottom")
_TOUCHING = np.ones((3, 3), np.uint8)  # pixels that touch at a corner are connected


def components(mask: npt.NDArray[np.uint8], classes: Sequence[str], numbers: Sequence[int]) -> list[JsonObject]:
    """The objects of the classes with these numbers in a mask (H, W), class by class, from top to bottom.

    Each has its class, its area in pixels, its centroid (x, y), where the middle of the first pixel is at 0.5, and its
    box (left, top, right, bottom), whose right and bottom edges are those of its last pixels. Objects that touch, be it
    at a corner, are one. Raises MissingExtraError.
    """
    try:
        from scipy import ndimage
    except ModuleNotFoundError as error:
        raise MissingExtraError("scipy", "sample") from error
    found: list[JsonObject] = []
    for number in numbers:
        labels, _ = ndimage.label(mask == number, structure=_TOUCHING)
        for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            y, x = np.nonzero(labels[rows, columns] == label)
            centroid = [float(x.mean()) + columns.start + 0.5, float(y.mean()) + rows.start + 0.5]
            box = [columns.start, rows.start, columns.stop, rows.stop]
            found.append({"class": classes[number], "area": len(y), "centroid": centroid, "box": box})
    return found


def component_row(entry: JsonObject) -> list[object]:
    """The values of `COLUMNS`."""
    return [entry["class"], entry["area"], *(f"{value:.2f}" for value in entry["centroid"]), *entry["box"]]
