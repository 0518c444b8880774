"""What is odd about a data set without being an obstacle: files passed over, mask values that are hardly there."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cyclemlp.data.formats.masks import IGNORE_INDEX
from cyclemlp.data.images import IMAGE_SUFFIXES
from cyclemlp.data.problems import Problem

Counts = npt.NDArray[np.int64]  # pixels of each value 0 to 255

RARE = 1e-4
"""Share of the pixels below which a mask value may be an accident."""
_COMPANIONS = frozenset({".xml", ".txt", ".json", ".csv"})
"""Suffixes of labels, which may stand beside images."""
_SHOWN = 5


def passed_over(images: Iterable[Path], split: str) -> list[Problem]:
    """The files beside the images of a split that are not taken for images, as one note."""
    folders = sorted({path.parent for path in images})
    others = [path for folder in folders for path in sorted(folder.iterdir()) if _is_passed_over(path)]
    if not others:
        return []
    further = {1: "is", 2: "and another file are"}.get(len(others), f"and {len(others) - 1} other files are")
    what = f"{further} passed over, since images have one of the suffixes {', '.join(sorted(IMAGE_SUFFIXES))}"
    return [Problem(others[0], split, what, "convert what is an image to JPEG or PNG")]


def odd_values(root: Path, totals: Counts, values_in: Mapping[Path, Counts]) -> list[Problem]:
    """Values of masks without named classes that are hardly there, or never below a higher one.

    `totals` are the pixels of each value in all masks, `values_in` the values of each.
    """
    pixels = totals[:IGNORE_INDEX]
    present = np.flatnonzero(pixels)
    rare = present[pixels[present] < RARE * totals.sum()].tolist()
    if rare:
        return [_rare(root, rare, int(pixels[rare].sum()), values_in)]
    if len(present) and len(present) <= present[-1]:
        unused = sorted(set(range(int(present[-1]))) - set(present.tolist()))
        what = f"hold no {_listed(unused)}, but {present[-1]}, which makes {present[-1] + 1} classes"
        return [Problem(root, "", what, "number the classes 0, 1, 2, ... or name all in classes.txt")]
    return []


def _is_passed_over(path: Path) -> bool:
    suffix = path.suffix.lower()
    return path.is_file() and not path.name.startswith(".") and suffix not in IMAGE_SUFFIXES | _COMPANIONS


def _rare(root: Path, rare: list[int], pixels: int, values_in: Mapping[Path, Counts]) -> Problem:
    files = [path for path, present in values_in.items() if np.isin(rare, present).any()]
    values = "value" if len(rare) == 1 else "values"
    where = f"in {pixels} pixels of {files[0].name}" if len(files) == 1 else _in_files(pixels, files)
    what = f"hold the {values} {_listed(rare)} only {where}"
    fix = (
        "where they come from smoothing or JPEG, save the masks as PNG without resampling or set those pixels to 255;"
        " where they are classes, name all in classes.txt"
    )
    return Problem(root, "", what, fix)


def _in_files(pixels: int, files: list[Path]) -> str:
    return f"in {pixels} pixels of {len(files)} files ({files[0].name}, for one)"


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values[:_SHOWN])) + (", ..." if len(values) > _SHOWN else "")
