"""A dense network over an image of any size, in memory that does not grow with the image's height.

A window slides over the image row by row. Windows overlap and their maps are blended with weights that fall smoothly
to zero at the window's border, where a network sees the least of its surroundings. Rows are yielded as soon as no later
window touches them.

Everything here is numpy: a network is any function from arrays to arrays, so exported files are used in the same way as
torch networks, and without torch.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cyclemlp.data.resizing import FloatArray, resize_bilinear
from cyclemlp.progress import progress_bar


class Planes(Protocol):
    """Images (N, C, H, W) of which windows are read when they are taken."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)"""

    def window(self, rows: slice, columns: slice, /) -> npt.NDArray[Any]:
        """(N, C, height, width) of these rows and columns."""


DenseNetwork = Callable[[FloatArray], FloatArray]
"""From images (N, C, H, W) to maps (N, K, H, W), logits for example."""

MIN_EDGE = 32  # the stride of a backbone's last stage: smaller inputs are padded
OVERLAP = 64
NOT_FINITE = "the network's output is not finite: its weights or this image hold extreme values"
PIXELS_PER_PASS = 2**19  # windows are given to the network together up to this many pixels


@dataclass(frozen=True)
class Tiling:
    """How an image is cut for the network."""

    window: int | None = None
    """Edge of the window in pixels of the upscaled image; None passes the image whole."""
    overlap: int = OVERLAP
    """Minimum number of pixels of the upscaled image that neighbouring windows share, at most half a window."""
    input_scale: float = 1.0
    """Factor by which windows are resized before the network; maps are resized back."""

    def __post_init__(self) -> None:
        if self.window is not None and self.window < MIN_EDGE:
            raise ValueError(f"window {self.window}: allowed are {MIN_EDGE} and more, or None")
        if self.overlap < 0:
            raise ValueError(f"overlap {self.overlap}: must not be below 0")
        if not self.input_scale > 0:
            raise ValueError(f"input_scale {self.input_scale}: must be above 0")

    def cuts(self, length: int) -> list["_Cut"]:
        """Where the window stands along an axis of `length` pixels: evenly spread, the last ending with the axis."""
        edge = length if self.window is None else max(1, int(self.window / self.input_scale))
        if edge >= length:
            return [_Cut(0, length, np.ones(length, dtype=np.float32))]
        overlap = min(round(self.overlap / self.input_scale), edge // 2)
        steps = math.ceil((length - edge) / (edge - overlap))
        starts = [round(i * (length - edge) / steps) for i in range(steps + 1)]
        ramp = np.sin((np.arange(edge) + 0.5) * (math.pi / edge)) ** 2
        total = np.zeros(length)
        for start in starts:
            total[start : start + edge] += ramp
        return [_Cut(s, s + edge, (ramp / total[s : s + edge]).astype(np.float32)) for s in starts]


@dataclass(frozen=True)
class _Cut:
    """One position of the window along one axis; weights over all cuts of an axis add up to 1 everywhere."""

    start: int
    stop: int
    weights: FloatArray


def map_strips(
    network: DenseNetwork, images: npt.NDArray[Any] | Planes, tiling: Tiling, *, first: int = 0, progress: bool = False
) -> Iterator[FloatArray]:
    """The network's maps at the size of `images` (N, C, H, W), from top to bottom, as strips (N, K, rows, W).

    There is a strip for each row of windows; `first`, less than all, is the number of those that are left out at
    the top.
    """
    height, width = images.shape[-2:]
    rows, columns = tiling.cuts(height), tiling.cuts(width)
    # The rows before reach into the first one that is wanted: two of them where windows share half or more.
    begin = next(number for number, row in enumerate(rows) if row.stop > rows[first].start)
    rows = rows[begin:]
    total = len(rows) * len(columns)
    unfinished: FloatArray | None = None
    with progress_bar(what="windows", unit="windows", total=total, shown=progress) as bar:
        for number, (row, after) in enumerate(zip(rows, [*rows[1:], None], strict=True), start=begin):
            band = _band(network, images, row, columns, tiling, bar.update)
            if unfinished is not None:
                band[:, :, : unfinished.shape[2]] += unfinished
            finished = (after.start if after else row.stop) - row.start
            strip, unfinished = [band[:, :, :finished]], band[:, :, finished:].copy()
            del band
            if number < first:
                strip.clear()
                continue
            yield strip.pop()  # nothing here keeps a band, neither while waiting nor while the next one is made


def _band(
    network: DenseNetwork,
    images: npt.NDArray[Any] | Planes,
    row: _Cut,
    columns: Sequence[_Cut],
    tiling: Tiling,
    advance: Callable[[int], object],
) -> FloatArray:
    """Weighted maps of one row of windows, (N, K, rows, W)."""
    edges = (row.stop - row.start, columns[0].stop - columns[0].start)
    pixels = images.shape[0] * edges[0] * edges[1] * tiling.input_scale**2
    together = max(1, int(PIXELS_PER_PASS / pixels))
    band: FloatArray | None = None
    for first in range(0, len(columns), together):
        group = columns[first : first + together]
        windows = np.concatenate([_window(images, slice(row.start, row.stop), slice(c.start, c.stop)) for c in group])
        maps = _window_maps(network, windows.astype(np.float32, copy=False), tiling.input_scale)
        if band is None:
            shape = (images.shape[0], maps.shape[1], edges[0], images.shape[-1])
            band = np.zeros(shape, dtype=np.float32)
        for cut, part in zip(group, np.split(maps, len(group)), strict=True):
            band[..., cut.start : cut.stop] += part * (row.weights[:, None] * cut.weights)
        advance(len(group))
    assert band is not None  # there is always a column
    return band


def _window(images: npt.NDArray[Any] | Planes, rows: slice, columns: slice) -> npt.NDArray[Any]:
    return images[:, :, rows, columns] if isinstance(images, np.ndarray) else images.window(rows, columns)


def _window_maps(network: DenseNetwork, windows: FloatArray, input_scale: float) -> FloatArray:
    """Maps at the size of `windows` from a network that sees them resized and padded."""
    height, width = windows.shape[-2:]
    resized = (max(1, round(height * input_scale)), max(1, round(width * input_scale)))
    windows = resize_bilinear(windows, *resized, antialias=True)  # as in training
    down, right = (max(0, MIN_EDGE - edge) for edge in resized)
    if down or right:
        windows = np.pad(windows, ((0, 0), (0, 0), (0, down), (0, right)), mode="edge")
    maps = network(windows)[..., : resized[0], : resized[1]]
    return resize_bilinear(maps, height, width)
