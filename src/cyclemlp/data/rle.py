"""COCO's RLE: masks as the lengths of runs of zeros and ones, column after column.

Everything that is used of faster-coco-eval's mask API is in this module. `toUncompressedRLE` belongs to its compiled
part and is not documented; the API's own `decode` takes tens of times as long as repeating the runs does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import numpy.typing as npt

from cyclemlp.errors import MissingExtraError

Runs = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rle:
    """A mask of `size` (height, width); `counts` is compressed as the mask API has it."""

    size: tuple[int, int]
    counts: bytes


def rle_of_mask(mask: npt.NDArray[np.uint8]) -> Rle:
    """The RLE of a mask (H, W) of 0 and 1."""
    encoded = _api().encode(np.asfortranarray(mask))
    return Rle((mask.shape[0], mask.shape[1]), _as_bytes(encoded["counts"]))


def rle_of_runs(runs: Sequence[int], size: tuple[int, int]) -> Rle:
    """The RLE of a mask whose runs have these lengths, zeros first."""
    encoded = _api().frPyObjects({"size": list(size), "counts": list(runs)}, *size)
    return Rle(size, _as_bytes(encoded["counts"]))


def rle_of_polygons(rings: Sequence[Sequence[float]], size: tuple[int, int]) -> Rle:
    """The RLE of the union of polygons, each (x0, y0, x1, y1, ...)."""
    api = _api()
    return Rle(size, _as_bytes(api.merge(api.frPyObjects(list(rings), *size))["counts"]))


def parse_rle(counts: object, size: tuple[int, int]) -> Rle:
    """The RLE of an annotation's `counts`, compressed or not. Raises ValueError as `parse_outline` does."""
    if isinstance(counts, list):
        if not all(isinstance(run, int) and run >= 0 for run in counts) or sum(counts) != size[0] * size[1]:
            raise ValueError("whose RLE does not add up to the image's pixels")
        return rle_of_runs(counts, size)
    if not isinstance(counts, str | bytes):
        raise ValueError("without an RLE (counts)")
    rle = Rle(size, _as_bytes(counts))
    try:
        total = int(runs_of(rle).sum())
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"whose RLE cannot be read ({error})") from error
    if total != size[0] * size[1]:
        raise ValueError("whose RLE does not add up to the image's pixels")
    return rle


def runs_of(rle: Rle) -> Runs:
    """The lengths of its runs, zeros first."""
    plain = _api()._mask.toUncompressedRLE([{"size": list(rle.size), "counts": rle.counts}])
    return np.array(plain[0]["counts"], np.int64)


def bitmap_of_runs(runs: Runs, height: int) -> npt.NDArray[np.uint8]:
    """The mask (height, W) of 0 and 1 that these runs make up."""
    values = (np.arange(len(runs)) % 2).astype(np.uint8)
    return np.repeat(values, runs).reshape(-1, height).T


def _as_bytes(counts: str | bytes) -> bytes:
    return counts.encode("ascii") if isinstance(counts, str) else counts


def _api() -> ModuleType:
    try:
        from faster_coco_eval.core import mask
    except ModuleNotFoundError as error:
        raise MissingExtraError("faster-coco-eval", "train") from error
    return mask
