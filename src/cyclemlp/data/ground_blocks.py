"""Square blocks of the ground, some of which validate: pixels, not images, are divided, by where they lie.

Neighbouring pixels resemble each other, and images that are held out at random lie next to images that train, or on
them: their scores say how well a network remembers. Here a pixel validates if its centre lies in a held-out block, and
trains if it lies in none and not within the margin of one. Overlapping images agree, and one image can do for both.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cyclemlp.data.common_ground import Footprint
from cyclemlp.errors import DataError

MARGIN = 0.1
"""Of the edge of a block, unless a margin is given: pixels nearer to a held-out block neither train nor validate."""
_BLOCKS_HELD_OUT = 5
"""About this number of blocks validate where the images cover their surroundings; one place alone shows little."""
_NICE = (1.0, 2.0, 5.0, 10.0)
MAX_BLOCKS = 100_000
"""More of them would be narrower than training crops, and slow."""
_SAMPLES = 32
"""Points along each edge of an image, at least, by which shares of its pixels are estimated."""
_SAMPLES_OF_A_BLOCK = 2
"""Points along each edge of a block, at least, unless pixels are fewer."""
_LEAST_SHARE = 0.01
"""Of the pixels of an image, below which it is left out of a split."""
Place = tuple[int, int]
"""Column and row of a block, counted from the origin of the coordinates."""


@dataclass(frozen=True)
class Blocks:
    """Which blocks of the ground are held out, and where the images lie."""

    edge: float
    """In the units of the coordinates."""
    held_out: frozenset[Place]
    places: tuple[tuple[Path, Footprint], ...]
    total: int
    """The number of blocks in which there are images."""
    margin: float = MARGIN
    """Of the edge: what lies nearer to a held-out block neither trains nor validates."""

    @cached_property
    def _place_of(self) -> dict[Path, Footprint]:
        return dict(self.places)

    def place_of(self, image: Path) -> Footprint:
        """Where an image lies."""
        return self._place_of[image]

    def describe(self) -> str:
        """How many blocks are held out; their edge in pixels of the image with the smallest ones."""
        edge = self.edge / min(place.pixel for _, place in self.places)
        return f"{len(self.held_out)} of {self.total} blocks of the ground (edge {edge:.0f} pixels)"

    def kept(self, image: Path, rows: slice, columns: slice, *, validates: bool) -> npt.NDArray[np.bool_]:
        """Whether each pixel of a window of an image belongs to the part that validates, or to the one that trains."""
        x, y = self._in_blocks(image, rows, columns)
        return self._near_held_out(x, y, 0.0) if validates else ~self._near_held_out(x, y, self.margin)

    def validates_at(self, x: float, y: float) -> bool:
        """Whether a place lies in a held-out block."""
        return (int(x // self.edge), int(y // self.edge)) in self.held_out

    def numbers(
        self, image: Path, rows: slice, columns: slice
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Column and row of the block of each pixel of a window, as arrays that broadcast."""
        x, y = self._in_blocks(image, rows, columns)
        return np.floor(x), np.floor(y)

    def _in_blocks(
        self, image: Path, rows: slice, columns: slice
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The centres of pixels in units of blocks."""
        centres = np.arange(columns.start, columns.stop)[None] + 0.5, np.arange(rows.start, rows.stop)[:, None] + 0.5
        x, y = self._place_of[image].points(*centres)
        return x / self.edge, y / self.edge

    @cached_property
    def _held_array(self) -> npt.NDArray[np.int64]:
        """(N, 2): column and row of each held-out block."""
        return np.array(sorted(self.held_out), np.int64)

    def _near_held_out(
        self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], margin: float
    ) -> npt.NDArray[np.bool_]:
        """Whether places in units of blocks, which broadcast, lie in a held-out block or within a margin of one.

        The blocks around each place are counted by sums over all blocks to the left of and below a corner.
        """
        first, last = ([np.floor(at + side).astype(np.int64) for at in (x, y)] for side in (-margin, margin))
        start = np.array([each.min() for each in first])
        held = self._held_array - start
        size = np.array([each.max() for each in last]) - start + 1
        inside = held[((held >= 0) & (held < size)).all(axis=1)]
        sums = np.zeros((size[1] + 1, size[0] + 1), np.int64)
        sums[inside[:, 1] + 1, inside[:, 0] + 1] = 1
        sums = sums.cumsum(axis=0).cumsum(axis=1)
        (left, top), (right, bottom) = (
            [each - origin for each, origin in zip(corner, start, strict=True)] for corner in (first, last)
        )
        right, bottom = right + 1, bottom + 1
        found: npt.NDArray[np.bool_] = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left] > 0
        return found

    def share(self, image: Path, *, validates: bool) -> float:
        """Of the pixels of an image, about."""
        thin = _thinned(self._place_of[image], self.edge)
        sampled = Blocks(self.edge, self.held_out, ((image, thin),), 1, self.margin)
        return float(sampled.kept(image, *map(slice, (0, 0), thin.size), validates=validates).mean())

    def held_within(self, first: Place, last: Place) -> list[Place]:
        """The held-out blocks from one column and row to others, in order."""
        held = self._held_array
        return [(column, row) for column, row in held[((held >= first) & (held <= last)).all(axis=1)].tolist()]


@dataclass(frozen=True)
class GroundPart:
    """The part of the ground that one split has."""

    blocks: Blocks
    validates: bool

    def kept(self, image: Path, rows: slice, columns: slice) -> npt.NDArray[np.bool_]:
        """Whether each pixel of a window of an image is this split's."""
        return self.blocks.kept(image, rows, columns, validates=self.validates)

    def held_out(self, image: Path, rows: slice, columns: slice) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
        """Each held-out block that a window of an image shows, by its place, and which pixels are in it."""
        column, row = self.blocks.numbers(image, rows, columns)
        first, last = (int(column.min()), int(row.min())), (int(column.max()), int(row.max()))
        for held in self.blocks.held_within(first, last):
            if (inside := (column == held[0]) & (row == held[1])).any():
                yield f"{held[0]} {held[1]}", inside

    def has(self, image: Path) -> bool:
        """Whether the split has more than a sliver of an image."""
        return self.blocks.share(image, validates=self.validates) >= _LEAST_SHARE


def blocks_of(
    places: Mapping[Path, Footprint],
    share: float,
    order: Callable[[str], float],
    edge: float | None = None,
    margin: float | None = None,
    *,
    usual: bool = False,
) -> Blocks | None:
    """Blocks of which about `share` of the pixels is held out; `order` gives the name of each a number from 0 to 1.

    `edge` and `margin` are in the units of the coordinates, and follow from the ground and the edge by default. Of an
    edge that follows from the ground (`usual`), blocks are held out in order up to the share. Of a given one each is
    held out whose number is below the share, whatever the others are, so that blocks stay where images are added.
    At least one is held out and one is not. None where all images lie in one block. Raises DataError for more than
    `MAX_BLOCKS` blocks.
    """
    usual = usual or edge is None
    edge = usual_edge(places, share) if edge is None else edge
    pixels = _areas(places.values(), edge)
    if len(pixels) < 2:
        return None
    numbers = {place: order(f"{place[0]} {place[1]}") for place in pixels}
    ordered = sorted(pixels, key=lambda place: numbers[place])[:-1]
    below = [place for place in ordered if numbers[place] < share] or ordered[:1]
    held = _up_to(share * sum(pixels.values()), ordered, pixels) if usual else below
    relative = MARGIN if margin is None else margin / edge
    return Blocks(edge, frozenset(held), tuple(places.items()), len(pixels), relative)


def _up_to(wanted: float, ordered: Sequence[Place], pixels: Mapping[Place, float]) -> list[Place]:
    """The first blocks, at least one, that have about the wanted number of pixels."""
    held, total = list(ordered[:1]), pixels[ordered[0]]
    for place in ordered[1:]:
        if total + pixels[place] / 2 > wanted:
            break
        held.append(place)
        total += pixels[place]
    return held


def _areas(places: Iterable[Footprint], edge: float) -> dict[Place, float]:
    """The ground of images in each block, about. Raises DataError for more than `MAX_BLOCKS` blocks."""
    areas: dict[Place, float] = {}
    for place in places:
        if math.prod(max(1.0, number) for number in _in_edges(place, edge)) > MAX_BLOCKS:
            raise _too_many(edge)
        thin = _thinned(place, edge)
        x, y = thin.points(np.arange(thin.size[1])[None] + 0.5, np.arange(thin.size[0])[:, None] + 0.5)
        numbers = np.stack(np.broadcast_arrays(np.floor(x / edge), np.floor(y / edge)), axis=-1).reshape(-1, 2)
        found, counts = np.unique(numbers.astype(np.int64), axis=0, return_counts=True)
        for (column, row), count in zip(found.tolist(), counts.tolist(), strict=True):
            areas[column, row] = areas.get((column, row), 0.0) + count * thin.pixel**2
        if len(areas) > MAX_BLOCKS:
            raise _too_many(edge)
    return areas


def _too_many(edge: float) -> DataError:
    return DataError(f"blocks of {edge:g} divide the ground into more than {MAX_BLOCKS}: give a larger --val-block")


def usual_edge(places: Mapping[Path, Footprint], share: float) -> float:
    """A round number near the edge of squares of which `_BLOCKS_HELD_OUT` are the share."""
    bounds = np.array([place.bounds for place in places.values()])
    width, height = bounds[:, 2:].max(axis=0) - bounds[:, :2].min(axis=0)
    wanted = float(np.sqrt(width * height * share / _BLOCKS_HELD_OUT))
    power = 10.0 ** np.floor(np.log10(wanted))
    return float(min((power * number for number in _NICE), key=lambda edge: abs(np.log(edge / wanted))))


def _in_edges(place: Footprint, edge: float) -> tuple[float, float]:
    """Height and width of an image in edges of blocks."""
    a, b, _, d, e, _ = place.matrix
    return place.size[0] * math.hypot(b, e) / edge, place.size[1] * math.hypot(a, d) / edge


def _thinned(place: Footprint, edge: float) -> Footprint:
    """The same ground with few, large pixels: as many as blocks of this edge need."""
    height, width = place.size
    wanted = (max(_SAMPLES, _SAMPLES_OF_A_BLOCK * number + 1) for number in _in_edges(place, edge))
    rows, columns = (int(min(number, pixels)) for number, pixels in zip(wanted, place.size, strict=True))
    a, b, c, d, e, f = place.matrix
    wide, high = width / columns, height / rows
    return Footprint((a * wide, b * high, c, d * wide, e * high, f), (rows, columns))
