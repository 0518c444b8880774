"""An image on its way through a network: in several views, and in windows where it is large."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from cyclemlp.data.measured_images import MeasuredImage
from cyclemlp.data.rasters import Measured
from cyclemlp.errors import DataError
from cyclemlp.heads.network import Network
from cyclemlp.inference.tiling import NOT_FINITE, OVERLAP, DenseNetwork, Planes, Tiling, map_strips
from cyclemlp.inference.views import Views, mean_of_views
from cyclemlp.progress import progress_bar
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.looks import FloatArray, Look, Pixels, Span, View

EXACT_ROWS = 512
"""Rows of the strips of an image that is seen block by block."""
MAX_WHOLE_PIXELS = 2**23
"""Larger images pass in windows even where the card asks for whole images: 8 million network pixels need gigabytes."""


@dataclass(frozen=True)
class WindowRule:
    """How large images are cut where the card does not say."""

    window: int
    """Edge in network pixels."""
    overlap: int | None
    """Network pixels that windows share; None for a fourth of the window."""


MAP_WINDOWS = WindowRule(1024, OVERLAP)
"""Maps are blended: what they lack at a border is a matter of pixels, not of the window's size."""
OBJECT_WINDOWS = WindowRule(2048, None)
"""A fourth of 2048 pixels are 512, the papers' largest anchor: objects up to it lie whole in some window."""


@dataclass(frozen=True)
class ImageThroughNetwork:
    """The `NetworkImage` that a predictor gives to a task."""

    network: Network
    card: ModelCard
    image: MeasuredImage
    views: Views
    progress: bool = False
    keeps_probabilities: bool = False
    exact: bool = False

    @property
    def pixels(self) -> Pixels:
        """The image (H, W, C)."""
        return self.image.pixels

    @property
    def valid(self) -> Measured | None:
        """Whether each pixel (H, W) is measured and not transparent; None where all are."""
        return self.image.valid

    def run(self, images: FloatArray) -> tuple[FloatArray, ...]:
        """The network's outputs for normalised images (N, C, H, W): see `run_network`."""
        return run_network(self.network, images)

    def maps(self, activation: Callable[[FloatArray], FloatArray]) -> Iterator[FloatArray]:
        """Strips (1, K, rows, W) of the output, from top to bottom, after `activation` where the task needs that."""
        # The strips of small views are the highest, so that the other views have to hold little back.
        images = np.ascontiguousarray(self.pixels.transpose(2, 0, 1))[None]
        strips = [
            self._strips(images, view, progress=self.progress and i == 0) for i, view in enumerate(sorted(self.views))
        ]
        if len(strips) > 1:
            return mean_of_views(strips, activation)
        return map(activation, strips[0]) if self.keeps_probabilities else strips[0]

    def looks(self) -> list[list[Look]]:
        """The windows of each view, row by row; one window where the image is not large."""
        height, width = self.pixels.shape[:2]
        looks = []
        for view in self.views:
            tiling = tiling_for(self.card, (height, width), view.scale, OBJECT_WINDOWS)
            places = product(spans_of(tiling, height), spans_of(tiling, width))
            looks.append([Look(view, tiling.input_scale, row, column) for row, column in places])
        return looks

    def in_turn(self, looks: Sequence[Sequence[Look]]) -> Iterator[Look]:
        """All looks one after another, with a progress bar where one was asked for."""
        every = [look for windows in looks for look in windows]
        return iter(progress_bar(every, what="windows", unit="windows", shown=self.progress))

    def _strips(self, images: npt.NDArray[np.uint8], view: View, *, progress: bool) -> Iterator[FloatArray]:
        seen = images[..., ::-1] if view.flipped else images
        maps = ImageMaps(self.network, self.card, images.shape[-2:], view.scale, self.exact)
        strips = maps.strips(seen, progress=progress)
        return map(partial(np.flip, axis=-1), strips) if view.flipped else strips  # map keeps no strip alive


class ImageMaps:
    """The maps of a dense network over an image of `size` (height, width) in a view of this scale, in strips.

    Where the image is large it is seen in windows, or with `exact` block by block, as if in one piece.
    """

    def __init__(
        self, network: Network, card: ModelCard, size: Sequence[int], view_scale: float, exact: bool = False
    ) -> None:
        self._network, self._card = network, card
        self._tiling = tiling_for(replace(card, window=None) if exact else card, size, view_scale, MAP_WINDOWS)
        self._exact = exact and self._tiling.window is not None
        height = size[0]
        tops = list(range(0, height, EXACT_ROWS)) if self._exact else [cut.start for cut in self._tiling.cuts(height)]
        self.rows = [slice(*ends) for ends in zip(tops, [*tops[1:], height], strict=True)]
        """The rows of each strip."""

    def strips(
        self, images: npt.NDArray[Any] | Planes, first: int = 0, *, progress: bool = False
    ) -> Iterator[FloatArray]:
        """Maps (1, K, rows, W) of `images` (1, C, H, W), from the strip of this number on. Raises DataError."""
        if not self._exact:
            network = dense_network(self._network, self._card)
            return map_strips(network, images, self._tiling, first=first, progress=progress)
        from cyclemlp.inference.exact import exact_strips  # which imports torch

        scale = self._tiling.input_scale
        return exact_strips(self._network, self._card, images, scale, EXACT_ROWS, first=first, progress=progress)


def run_network(network: Network, images: FloatArray) -> tuple[FloatArray, ...]:
    """The network's outputs for normalised images (N, C, H, W), padded to the multiples that it takes.

    Raises DataError where an output is not finite: it would pass for the first class, or for no object.
    """
    down, right = (-edge % network.size_rule.multiple for edge in images.shape[-2:])
    if down or right:
        images = np.pad(images, ((0, 0), (0, 0), (0, down), (0, right)))
    outputs = network(images)
    if not all(np.isfinite(output).all() for output in outputs):
        raise DataError(NOT_FINITE)
    return outputs


def dense_network(network: Network, card: ModelCard) -> DenseNetwork:
    """The network on values 0 to 255 of any size: normalised, and padded to a size that it takes."""

    def outputs(windows: FloatArray) -> FloatArray:
        height, width = windows.shape[-2:]
        down, right = (network.size_rule.padded(edge) - edge for edge in (height, width))
        images = card.normalised(windows)
        if down or right:
            images = np.pad(images, ((0, 0), (0, 0), (0, down), (0, right)))
        (maps,) = run_network(network, images)
        return maps[..., :height, :width]

    return outputs


def tiling_for(card: ModelCard, size: Sequence[int], view_scale: float, rule: WindowRule) -> Tiling:
    """How an image of `size` (height, width) is cut for the network of `card`, in a view of this scale."""
    height, width = size
    window = card.window
    usual = card.resize_rule.factor(height, width)
    # Maps are returned at the image's own size, so a smaller view of them needs no less memory.
    counted = usual * (max(1.0, view_scale) if rule is MAP_WINDOWS else view_scale)
    if window is None and height * width * counted**2 > MAX_WHOLE_PIXELS:
        window = rule.window
    overlap = card.overlap
    if overlap is None:
        overlap = rule.overlap if rule.overlap is not None else (window or 0) // 4
    return Tiling(window, overlap, usual * view_scale)


def spans_of(tiling: Tiling, length: int) -> list[Span]:
    """Where the windows of a tiling lie along an axis of this length."""
    cuts = tiling.cuts(length)
    ends = [-math.inf, *(float(cut.stop) for cut in cuts)]
    starts = [*(float(cut.start) for cut in cuts), math.inf]
    return [Span(cut.start, cut.stop, ends[i], starts[i + 1]) for i, cut in enumerate(cuts)]
