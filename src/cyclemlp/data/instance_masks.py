"""Outlines of objects as annotation files hold them, decoded no earlier and no larger than needed.

An outline is a set of polygons or run lengths in COCO's column-major order. A picture of 4000x3000 pixels with 300
objects would be 3.6 GB of masks; decoded within their boxes they are a few megabytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cyclemlp.errors import MissingExtraError

Bitmap = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Polygons:
    """The union of closed outlines, each an array (x0, y0, x1, y1, ...) in pixels of the picture."""

    rings: tuple[npt.NDArray[np.float64], ...]


@dataclass(frozen=True, eq=False)
class RunLengths:
    """COCO's run lengths: `counts` compressed as the mask API has them."""

    size: tuple[int, int]
    """(height, width)."""
    counts: bytes


Outline = Polygons | RunLengths


class Patch(NamedTuple):
    """The part of a mask that can hold ones: `bitmap` (h, w) of 0 and 1 with its upper left pixel at (top, left)."""

    top: int
    left: int
    bitmap: Bitmap

    def whole(self, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """The mask (H, W) of a picture of `size`."""
        mask = np.zeros(size, dtype=np.bool_)
        height, width = self.bitmap.shape
        mask[self.top : self.top + height, self.left : self.left + width] = self.bitmap
        return mask


def parse_outline(raw: Any, size: tuple[int, int]) -> Outline | None:
    """An annotation's `segmentation` field: polygons, run lengths, or None where it is empty or missing.

    `size` is the (height, width) of the picture. Raises ValueError that says what is wrong with it.
    """
    if isinstance(raw, dict):
        return _parse_run_lengths(raw, size)
    if not isinstance(raw, list):
        if raw is None:
            return None
        raise ValueError("is neither a list of polygons nor run lengths")
    try:
        rings = tuple(np.array(ring, np.float64) for ring in raw)
    except (TypeError, ValueError) as error:
        raise ValueError("has a polygon that is no list of numbers") from error
    if any(ring.ndim != 1 or ring.size < 6 or ring.size % 2 or not np.isfinite(ring).all() for ring in rings):
        raise ValueError("has a polygon that is no list of three or more pairs x, y")
    return Polygons(rings) if rings else None


def whole_mask(outline: Outline | None, size: tuple[int, int]) -> Bitmap:
    """The mask (H, W) of 0 and 1; all 0 without an outline."""
    mask = np.zeros(size, np.uint8)
    if outline is not None:
        patch = draw_patch(outline, size)
        height, width = patch.bitmap.shape
        mask[patch.top : patch.top + height, patch.left : patch.left + width] = patch.bitmap
    return mask


def draw_patch(outline: Outline, size: tuple[int, int]) -> Patch:
    """The outline's pixels in a picture of `size` (height, width), in a frame not much larger than they are."""
    return _draw_polygons(outline, size) if isinstance(outline, Polygons) else _draw_run_lengths(outline)


def box_of(outline: Outline, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) around the outline's pixels; all 0 where it has none."""
    patch = draw_patch(outline, size)
    rows, columns = (np.flatnonzero(patch.bitmap.any(axis)) for axis in (1, 0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    left, top = patch.left + int(columns[0]), patch.top + int(rows[0])
    return left, top, patch.left + int(columns[-1]) + 1, patch.top + int(rows[-1]) + 1


def run_lengths_of(mask: Bitmap) -> RunLengths:
    """The mask (H, W) of 0 and 1 as run lengths."""
    encoded = _mask_api().encode(np.asfortranarray(mask))
    return RunLengths((mask.shape[0], mask.shape[1]), _as_bytes(encoded["counts"]))


def run_lengths_of_patch(patch: Patch, size: tuple[int, int]) -> RunLengths:
    """The mask of a picture of `size` (height, width) that has ones in `patch` alone; it is never made as a whole."""
    framed = np.zeros((patch.bitmap.shape[0] + 2, patch.bitmap.shape[1]), np.int8)
    framed[1:-1] = patch.bitmap
    columns, rows = np.nonzero(np.diff(framed, axis=0).T)
    changes = (patch.left + columns) * size[0] + patch.top + rows
    # Ones at the foot of a column go on at the head of the next: there a run ends where another starts.
    places, times = np.unique(changes, return_counts=True)
    runs = np.diff(places[times == 1], prepend=0, append=size[0] * size[1])
    counts = runs.tolist() if runs[-1] else runs[:-1].tolist()
    return RunLengths(size, _as_bytes(_mask_api().frPyObjects({"size": list(size), "counts": counts}, *size)["counts"]))


def to_coco(outline: Outline) -> Any:
    """The `segmentation` field of an annotation, as JSON has it."""
    if isinstance(outline, Polygons):
        return [ring.tolist() for ring in outline.rings]
    return {"size": list(outline.size), "counts": outline.counts.decode("ascii")}


def _parse_run_lengths(raw: dict[str, Any], size: tuple[int, int]) -> RunLengths:
    counts = raw.get("counts")
    if list(raw.get("size", ())) != list(size):
        raise ValueError(f"is of size {raw.get('size')}, its picture is {list(size)} (height, width)")
    if isinstance(counts, list):
        if not all(isinstance(run, int) and run >= 0 for run in counts) or sum(counts) != size[0] * size[1]:
            raise ValueError("has run lengths that do not add up to the picture's pixels")
        counts = _mask_api().frPyObjects({"size": list(size), "counts": counts}, *size)["counts"]
    if not isinstance(counts, str | bytes):
        raise ValueError("has no run lengths (counts)")
    outline = RunLengths(size, _as_bytes(counts))
    try:
        total = int(_runs(outline).sum())
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"has run lengths that cannot be read ({error})") from error
    if total != size[0] * size[1]:
        raise ValueError("has run lengths that do not add up to the picture's pixels")
    return outline


def _draw_polygons(outline: Polygons, size: tuple[int, int]) -> Patch:
    """Shifted by whole pixels, so that the API's rounding gives the very pixels it gives in the whole picture."""
    xs = np.concatenate([ring[0::2] for ring in outline.rings])
    ys = np.concatenate([ring[1::2] for ring in outline.rings])
    top, bottom = _frame(ys, size[0])
    left, right = _frame(xs, size[1])
    shape = (bottom - top, right - left)
    api = _mask_api()
    shift = np.array([left, top])
    rings = [(ring.reshape(-1, 2) - shift).ravel().tolist() for ring in outline.rings]
    merged = api.merge(api.frPyObjects(rings, *shape))
    return Patch(top, left, _fill(_runs(RunLengths(shape, merged["counts"])), shape[0]))


def _frame(values: npt.NDArray[np.float64], length: int) -> tuple[int, int]:
    """Start and end of the whole pixels that hold `values`, at least one of [0, length)."""
    start = min(max(int(np.floor(values.min())) - 1, 0), length - 1)
    return start, max(min(int(np.ceil(values.max())) + 1, length), start + 1)


def _draw_run_lengths(outline: RunLengths) -> Patch:
    """Columns without ones are left out: runs are column after column."""
    height, _ = outline.size
    runs = _runs(outline)
    ends = np.cumsum(runs)
    if len(runs) < 2:
        return Patch(0, 0, np.zeros((height, 1), np.uint8))
    last_one = int(ends[1::2][-1])
    left, right = int(runs[0]) // height, -(-last_one // height)
    edges = np.clip(ends, left * height, right * height)
    return Patch(0, left, _fill(np.diff(edges, prepend=left * height), height))


def _fill(runs: npt.NDArray[np.int64], height: int) -> Bitmap:
    values = (np.arange(len(runs)) % 2).astype(np.uint8)
    return np.repeat(values, runs).reshape(-1, height).T


def _runs(outline: RunLengths) -> npt.NDArray[np.int64]:
    # The API's own decode takes tens of times as long as repeating the runs does.
    plain = _compiled_api().toUncompressedRLE([{"size": list(outline.size), "counts": outline.counts}])
    return np.array(plain[0]["counts"], np.int64)


def _as_bytes(counts: str | bytes) -> bytes:
    return counts.encode("ascii") if isinstance(counts, str) else counts


def _mask_api() -> Any:
    try:
        from faster_coco_eval.core import mask
    except ModuleNotFoundError as error:
        raise MissingExtraError("faster-coco-eval", "train") from error
    return mask


def _compiled_api() -> Any:
    try:
        from faster_coco_eval import mask_api_new_cpp
    except ModuleNotFoundError as error:
        raise MissingExtraError("faster-coco-eval", "train") from error
    return mask_api_new_cpp


def stacked(masks: Sequence[Bitmap], size: tuple[int, int]) -> Bitmap:
    """(N, H, W) of `masks`, also where there is none."""
    return np.stack(masks) if masks else np.zeros((0, *size), np.uint8)
