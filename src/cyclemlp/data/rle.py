"""COCO's RLE: masks as the lengths of runs of zeros and ones, column after column.

The strings are those of COCO's mask API, written and read by numpy alone. Polygons become pixels by the rules of that
API, which is faster-coco-eval's here: all that is used of it outside evaluation is in `rle_of_polygons`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cyclemlp.errors import MissingExtraError

Runs = npt.NDArray[np.int64]

_GROUP_BITS, _MAX_GROUPS = 5, 8
"""Bits per character of a compressed number, and characters of the longest: runs have fewer than 2**39 pixels."""


@dataclass(frozen=True, eq=False)
class Rle:
    """A mask of `size` (height, width); `counts` is compressed as the mask API has it."""

    size: tuple[int, int]
    counts: bytes


def rle_of_mask(mask: npt.NDArray[np.uint8]) -> Rle:
    """The RLE of a mask (H, W) of 0 and 1."""
    values = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(values, prepend=np.uint8(0)))
    return rle_of_runs(np.diff(changes, prepend=0, append=len(values)), (mask.shape[0], mask.shape[1]))


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
        if not all(isinstance(run, int) and run >= 0 for run in counts) or sum(counts) != size[0] * size[1]:
            raise ValueError("whose RLE does not add up to the image's pixels")
        return rle_of_runs(counts, size)
    if not isinstance(counts, str | bytes):
        raise ValueError("without an RLE (counts)")
    rle = Rle(size, counts.encode() if isinstance(counts, str) else counts)
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
