"""Outlines of objects as annotation files hold them, decoded no earlier and no larger than needed.

An outline is a set of polygons or an RLE. An image of 4000x3000 pixels with 300 objects would be 3.6 GB of masks;
decoded within their boxes they are a few megabytes.

COCO's RLE is the lengths of runs of zeros and ones, column after column. Its strings are those of COCO's mask API,
written and read by numpy alone. Polygons become pixels by the rules of that API, which is faster-coco-eval's here: all
that is used of it outside evaluation is in `rle_of_polygons`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cyclemlp.documents import shown
from cyclemlp.errors import MissingExtraError

Runs = npt.NDArray[np.int64]
Bitmap = npt.NDArray[np.uint8]

MAX_COORDINATE = 1e12
"""Pixels from the corner of an image to a point of an outline."""
_RINGS, _SAMPLED = 16, 4
"""Polygons of an object, and points of one, that are looked at for whether it is a hole."""
_GROUP_BITS, _MAX_GROUPS = 5, 8
"""Bits per character of a compressed number, and characters of the longest: runs have fewer than 2**39 pixels."""


@dataclass(frozen=True, eq=False)
class Rle:
    """A mask of `size` (height, width); `counts` is compressed as the mask API has it."""

    size: tuple[int, int]
    counts: bytes


@dataclass(frozen=True, eq=False)
class Polygons:
    """The union of closed outlines, each an array (x0, y0, x1, y1, ...) in pixels of the image."""

    rings: tuple[npt.NDArray[np.float64], ...]


Outline = Polygons | Rle


class Patch(NamedTuple):
    """The part of a mask that can hold ones: `bitmap` (h, w) of 0 and 1 with its upper left pixel at (top, left)."""

    top: int
    left: int
    bitmap: Bitmap

    def whole(self, size: tuple[int, int]) -> Bitmap:
        """The mask (H, W) of an image of `size`."""
        mask = np.zeros(size, np.uint8)
        height, width = self.bitmap.shape
        mask[self.top : self.top + height, self.left : self.left + width] = self.bitmap
        return mask


def parse_outline(raw: object, size: tuple[int, int]) -> Outline | None:
    """An annotation's `segmentation` field: polygons, an RLE, or None if it is empty or missing.

    `size` is the (height, width) of the image. Raises ValueError, whose message continues "a segmentation ...".
    """
    if isinstance(raw, dict):
        if raw.get("size") not in (list(size), tuple(size)):
            raise ValueError(f"of size {shown(raw.get('size'))}, but its image is {list(size)} (height, width)")
        return parse_rle(raw.get("counts"), size)
    if raw is None:
        return None
    if not isinstance(raw, list):
        raise ValueError("that is neither a list of polygons nor an RLE")
    try:
        rings = tuple(np.array(ring, np.float64) for ring in raw)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("with a polygon that is not a list of numbers") from error
    if any(ring.ndim != 1 or ring.size < 6 or ring.size % 2 or not np.isfinite(ring).all() for ring in rings):
        raise ValueError("with a polygon that is not a list of three or more pairs x, y")
    if any(np.abs(ring).max() > MAX_COORDINATE for ring in rings):
        raise ValueError(f"with a point more than {MAX_COORDINATE:.0e} pixels away")
    return Polygons(rings) if rings else None


def draw_patch(outline: Outline, size: tuple[int, int]) -> Patch:
    """The outline's pixels in an image of `size` (height, width), in a frame not much larger than they are."""
    return _draw_polygons(outline, size) if isinstance(outline, Polygons) else _draw_rle(outline)


def whole_mask(outline: Outline | None, size: tuple[int, int]) -> Bitmap:
    """The mask (H, W) of 0 and 1; all 0 without an outline."""
    return np.zeros(size, np.uint8) if outline is None else draw_patch(outline, size).whole(size)


def has_ring_inside(outline: Outline) -> bool:
    """Whether one of its polygons lies inside another, as the hole of a ring does; the first `_RINGS` are compared."""
    if not isinstance(outline, Polygons):
        return False
    points = [ring.reshape(-1, 2) for ring in outline.rings[:_RINGS]]
    low, high = (np.stack([f(each, axis=0) for each in points]) for f in (np.min, np.max))
    inside = (low[:, None] > low).all(-1) & (high[:, None] < high).all(-1)
    return any(_contains(points[outer], points[inner][:_SAMPLED]) for inner, outer in np.argwhere(inside))


def _contains(ring: npt.NDArray[np.float64], points: npt.NDArray[np.float64]) -> bool:
    """Whether all points (N, 2) lie inside of a polygon (M, 2), by the even-odd rule."""
    (x0, y0), (x1, y1) = ring.T, np.roll(ring, -1, axis=0).T
    x, y = points[:, :1], points[:, 1:]
    crosses = (y0 > y) != (y1 > y)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # level edges, which cross nothing
        left = x < x0 + (y - y0) / (y1 - y0) * (x1 - x0)
    return bool(((crosses & left).sum(1) % 2 == 1).all())


def box_of(outline: Outline, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) around the outline's pixels; all 0 where it has none."""
    patch = draw_patch(outline, size)
    rows, columns = (np.flatnonzero(patch.bitmap.any(axis)) for axis in (1, 0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    left, top = patch.left + int(columns[0]), patch.top + int(rows[0])
    return left, top, patch.left + int(columns[-1]) + 1, patch.top + int(rows[-1]) + 1


def extent_of(outline: Outline, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """(left, top, right, bottom) around the outline within an image of `size` (height, width), without drawing it.

    None where nothing of it lies in the image.
    """
    height, width = size
    if isinstance(outline, Polygons):
        points = np.concatenate(outline.rings).reshape(-1, 2)
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        inside = left <= width and top <= height and right >= 0 and bottom >= 0
        return (max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)) if inside else None
    ends = np.cumsum(runs_of(outline))
    starts, ends = ends[:-1:2], ends[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts] - 1  # first and last pixel of each run of ones
    if not len(starts):
        return None
    one_column = starts // height == ends // height
    tops, bottoms = (starts % height, ends % height) if one_column.all() else (np.array([0]), np.array([height - 1]))
    left, right = int(starts[0]) // height, int(ends[-1]) // height + 1
    return float(left), float(tops.min()), float(right), float(bottoms.max() + 1)


def area_of(outline: Outline) -> float:
    """Its area in pixels, wherever it lies, without drawing it; polygons that overlap count twice."""
    if isinstance(outline, Rle):
        return float(runs_of(outline)[1::2].sum())
    corners = ((ring[0::2], ring[1::2]) for ring in outline.rings)
    return sum(float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2) for x, y in corners)  # the shoelace formula


def rle_of_patch(patch: Patch, size: tuple[int, int]) -> Rle:
    """The RLE of a mask of `size` (height, width) with ones in `patch` alone, which is never made as a whole."""
    framed = np.zeros((patch.bitmap.shape[0] + 2, patch.bitmap.shape[1]), np.int8)
    framed[1:-1] = patch.bitmap
    columns, rows = np.nonzero(np.diff(framed, axis=0).T)
    changes = (patch.left + columns) * size[0] + patch.top + rows
    # Ones at the bottom of a column continue at the top of the next: there a run ends where another starts.
    places, times = np.unique(changes, return_counts=True)
    runs = np.diff(places[times == 1], prepend=0, append=size[0] * size[1])
    return rle_of_runs(runs.tolist() if runs[-1] else runs[:-1].tolist(), size)


def to_coco(outline: Outline) -> object:
    """The `segmentation` field of an annotation, as JSON has it."""
    if isinstance(outline, Polygons):
        return [ring.tolist() for ring in outline.rings]
    return {"size": list(outline.size), "counts": outline.counts.decode("ascii")}


def _draw_polygons(outline: Polygons, size: tuple[int, int]) -> Patch:
    """Shifted by whole pixels, so that the API rounds to the same pixels as in the whole image."""
    xs = np.concatenate([ring[0::2] for ring in outline.rings])
    ys = np.concatenate([ring[1::2] for ring in outline.rings])
    top, bottom = _frame(ys, size[0])
    left, right = _frame(xs, size[1])
    shape = (bottom - top, right - left)
    shift = np.array([left, top])
    near = (each for ring in outline.rings if len(each := near_image(ring.reshape(-1, 2), size)))
    rings = [(points - shift).ravel().tolist() for points in near]
    if not rings:
        return Patch(top, left, np.zeros(shape, np.uint8))
    return Patch(top, left, bitmap_of_runs(runs_of(rle_of_polygons(rings, shape)), shape[0]))


def near_image(points: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """A closed outline (N, 2) cut to the neighbourhood of its image, where it reaches further than the image is large.

    The mask API walks along every edge, in steps of a fifth of a pixel, wherever it lies; Pillow in whole pixels. Edges
    that are not cut stay as they are, so that the pixels are the same; by Sutherland and Hodgman, "Reentrant polygon
    clipping", 1974.
    """
    margin = max(size) + 16
    for axis, length in ((0, size[1]), (1, size[0])):
        for sign, limit in ((-1, margin), (1, length + margin)):
            beyond = sign * points[:, axis] - limit
            if len(points) and beyond.max() > 0:
                points = _cut(points, beyond)
    return points


def _cut(points: npt.NDArray[np.float64], beyond: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The part of a closed outline where `beyond`, linear along its edges, is at most 0."""
    following, beyond_there = np.roll(points, -1, axis=0), np.roll(beyond, -1)
    crosses = (beyond > 0) != (beyond_there > 0)
    shares = np.divide(beyond, beyond - beyond_there, out=np.zeros_like(beyond), where=crosses)
    both = np.stack([points, points + shares[:, None] * (following - points)], axis=1)
    kept: npt.NDArray[np.float64] = both[np.stack([beyond <= 0, crosses], axis=1)]
    return kept


def _frame(values: npt.NDArray[np.float64], length: int) -> tuple[int, int]:
    """Start and end of the whole pixels that hold `values`, at least one of [0, length)."""
    start = min(max(int(np.floor(values.min())) - 1, 0), length - 1)
    return start, max(min(int(np.ceil(values.max())) + 1, length), start + 1)


def _draw_rle(rle: Rle) -> Patch:
    """Columns without ones are left out: runs are column after column."""
    height, _ = rle.size
    runs = runs_of(rle)
    ends = np.cumsum(runs)
    if len(runs) < 2:
        return Patch(0, 0, np.zeros((height, 1), np.uint8))
    last_one = int(ends[1::2][-1])
    left, right = int(runs[0]) // height, -(-last_one // height)
    edges = np.clip(ends, left * height, right * height)
    return Patch(0, left, bitmap_of_runs(np.diff(edges, prepend=left * height), height))


def rle_of_mask(mask: npt.NDArray[np.uint8]) -> Rle:
    """The RLE of a mask (H, W) of 0 and 1."""
    return rle_of_patch(Patch(0, 0, mask), (mask.shape[0], mask.shape[1]))


def rle_of_runs(runs: Sequence[int] | Runs, size: tuple[int, int]) -> Rle:
    """The RLE of a mask whose runs have these lengths, zeros first.

    From the fourth on, a run is written as its difference from the run two before it: in groups of five bits, the
    lowest first, each with a sixth bit that says whether another follows, and 48 added to make it a character.
    """
    numbers = np.asarray(runs, np.int64)
    numbers = np.concatenate([numbers[:3], numbers[3:] - numbers[1:-2]])[:, None]
    bits = _GROUP_BITS * np.arange(_MAX_GROUPS)
    # A number ends with the first group that holds its sign: all higher bits are copies of it.
    follows = (numbers >> (bits + _GROUP_BITS - 1) != 0) & (numbers >> (bits + _GROUP_BITS - 1) != -1)
    used = np.concatenate([np.ones_like(follows[:, :1]), follows[:, :-1]], axis=1)
    characters = ((numbers >> bits) & 31) + 32 * follows + 48
    return Rle(size, characters[used].astype(np.uint8).tobytes())


def rle_of_polygons(rings: Sequence[Sequence[float]], size: tuple[int, int]) -> Rle:
    """The RLE of the union of polygons, each (x0, y0, x1, y1, ...). Raises MissingExtraError."""
    try:
        from faster_coco_eval.core import mask as api
    except ModuleNotFoundError as error:
        raise MissingExtraError("faster-coco-eval", "train") from error
    return Rle(size, api.merge(api.frPyObjects(list(rings), *size))["counts"])


def parse_rle(counts: object, size: tuple[int, int]) -> Rle:
    """The RLE of an annotation's `counts`, compressed or not. Raises ValueError as `parse_outline` does."""
    if isinstance(counts, list):
        whole = all(isinstance(run, int) and not isinstance(run, bool) and run >= 0 for run in counts)
        if not whole or sum(counts) != size[0] * size[1]:
            raise ValueError("whose RLE does not add up to the image's pixels")
        return rle_of_runs(counts, size)
    if not isinstance(counts, str | bytes):
        raise ValueError("without an RLE (counts)")
    rle = Rle(size, counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts)
    if int(runs_of(rle).sum()) != size[0] * size[1]:
        raise ValueError("whose RLE does not add up to the image's pixels")
    return rle


def runs_of(rle: Rle) -> Runs:
    """The lengths of its runs, zeros first. Raises ValueError for `counts` that are no RLE."""
    groups = np.frombuffer(rle.counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((groups & 32) == 0)
    sizes = np.diff(ends, prepend=-1)
    if not len(groups) or groups.min() < 0 or groups.max() > 63 or ends[-1:].tolist() != [len(groups) - 1]:
        raise ValueError("whose RLE cannot be read")
    if sizes.max() > _MAX_GROUPS:
        raise ValueError("whose RLE has a run that is too long")
    starts = ends - sizes + 1
    places = _GROUP_BITS * (np.arange(len(groups)) - np.repeat(starts, sizes))
    numbers = np.add.reduceat((groups & 31) << places, starts)
    negative = (groups[ends] & 16) != 0
    numbers -= np.where(negative, 1 << (_GROUP_BITS * sizes), 0)
    for parity in (1, 2):  # runs of ones, then those of zeros after the first
        numbers[parity::2] = np.cumsum(numbers[parity::2])
    if numbers.min() < 0:
        raise ValueError("whose RLE has a negative run")
    return numbers


def bitmap_of_runs(runs: Runs, height: int) -> npt.NDArray[np.uint8]:
    """The mask (height, W) of 0 and 1 that these runs make up."""
    values = (np.arange(len(runs)) % 2).astype(np.uint8)
    return np.repeat(values, runs).reshape(-1, height).T
