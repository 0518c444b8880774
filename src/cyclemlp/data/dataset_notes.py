"""What is odd about a data set but does not prevent training: skipped files, mask values that are rare."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cyclemlp.data.images import IMAGE_SUFFIXES
from cyclemlp.data.masks import IGNORE_INDEX
from cyclemlp.data.problems import Problem, listed

Counts = npt.NDArray[np.int64]  # pixels of each value 0 to 255

RARE = 1e-4
"""Share of the pixels below which a mask value may be an accident."""
_COMPANIONS = frozenset({".xml", ".txt", ".json", ".csv"})
"""Suffixes of labels, which may be next to images."""


def skipped_files(images: Iterable[Path], split: str) -> list[Problem]:
    """The files next to the images of a split that are not read as images, as one note."""
    folders = sorted({path.parent for path in images})
    others = [path for folder in folders for path in sorted(folder.iterdir()) if _is_skipped(path)]
    if not others:
        return []
    further = {1: "is", 2: "and another file are"}.get(len(others), f"and {len(others) - 1} other files are")
    what = f"{further} skipped because images have one of the suffixes {', '.join(sorted(IMAGE_SUFFIXES))}"
    return [Problem(others[0], split, what, "convert what is an image to JPEG or PNG")]


def odd_values(root: Path, totals: Counts, values_in: Mapping[Path, Counts]) -> list[Problem]:
    """Values of masks without named classes that are rare, or missing below a higher one.

    `totals` are the pixels of each value in all masks, `values_in` the values of each.
    """
    pixels = totals[:IGNORE_INDEX]
    present = np.flatnonzero(pixels)
    rare = present[pixels[present] < RARE * totals.sum()].tolist()
    if rare:
        return [_rare(root, rare, int(pixels[rare].sum()), values_in)]
    if len(present) and len(present) <= present[-1]:
        unused = sorted(set(range(int(present[-1]))) - set(present.tolist()))
        what = f"hold no {listed(unused)}, but {present[-1]}, which makes {present[-1] + 1} classes"
        return [Problem(root, "", what, "number the classes 0, 1, 2, ... or name all in classes.txt")]
    return []


def _is_skipped(path: Path) -> bool:
    suffix = path.suffix.lower()
    return path.is_file() and not path.name.startswith(".") and suffix not in IMAGE_SUFFIXES | _COMPANIONS


def _rare(root: Path, rare: list[int], pixels: int, values_in: Mapping[Path, Counts]) -> Problem:
    files = [path for path, present in values_in.items() if np.isin(rare, present).any()]
    values = "value" if len(rare) == 1 else "values"
    where = files[0].name if len(files) == 1 else f"{len(files)} files (such as {files[0].name})"
    what = f"hold the {values} {listed(rare)} only in {pixels} pixels of {where}"
    fix = (
        "if they come from smoothing or JPEG, save the masks as PNG without resampling or set those pixels to 255;"
        " if they are classes, name all in classes.txt"
    )
    return Problem(root, "", what, fix)
