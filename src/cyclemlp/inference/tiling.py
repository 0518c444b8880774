"""A dense network over an image of any size, in memory that does not grow with the image's height.

A window slides over the image row by row. Windows overlap and their logits are blended with weights that
fall smoothly to nothing at the window's border, where a network knows its surroundings least. Rows are handed
out as soon as no later window touches them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

Network = Callable[[Tensor], Tensor]

MIN_EDGE = 32  # the stride of a backbone's last stage: smaller inputs are padded
OVERLAP = 64
PIXELS_PER_PASS = 2**19  # windows are given to the network together up to this many pixels


@dataclass(frozen=True)
class Tiling:
    """How an image is cut for the network."""

    window: int | None = None
    """Edge of the window in pixels of the enlarged image; None gives the image whole."""
    overlap: int = OVERLAP
    """Least pixels of the enlarged image that neighbouring windows share, at most half a window. What a window
    lacks at its border is a matter of pixels, not of its size, so large windows waste less."""
    input_scale: float = 1.0
    """Factor by which windows are enlarged before the network; logits are resized back."""

    def __post_init__(self) -> None:
        if self.window is not None and self.window < MIN_EDGE:
            raise ValueError(f"window {self.window}: allowed are {MIN_EDGE} and more, or None")
        if self.overlap < 0:
            raise ValueError(f"overlap {self.overlap}: must not be below 0")
        if not self.input_scale > 0:
            raise ValueError(f"input_scale {self.input_scale}: must be above 0")

    def cuts(self, length: int) -> list["_Cut"]:
        """Where the window stands along an axis of `length` pixels of the image."""
        if self.window is None:
            return _cuts(length, length, 0)
        edge = max(1, int(self.window / self.input_scale))
        return _cuts(length, edge, min(round(self.overlap / self.input_scale), edge // 2))


@dataclass(frozen=True)
class _Cut:
    """One position of the window along one axis; weights over all cuts of an axis add up to 1 everywhere."""

    start: int
    stop: int
    weights: Tensor


def predict_logits(
    network: Network,
    images: Tensor,
    window: int | None = None,
    overlap: int = OVERLAP,
    *,
    input_scale: float = 1.0,
    progress: bool = False,
) -> Tensor:
    """Logits of whole images, (N, K, H, W) float32 on the CPU, from a network that maps NCHW to N K H W.

    `images` (N, C, H, W) of any dtype and any size from 1 x 1; the network gets float32 on the same device,
    at least 32 pixels in each direction. Equal to one plain pass where a window covers the image.
    """
    tiling = Tiling(window, overlap, input_scale)
    return torch.cat(list(logit_strips(network, images, tiling, progress=progress)), dim=2)


def predict_classes(network: Network, images: Tensor, tiling: Tiling, *, progress: bool = False) -> Tensor:
    """The most likely class of every pixel, (N, H, W) uint8 on the CPU; otherwise as `predict_logits`.

    Logits of one row of windows are held at a time, so many classes on a large image fit in memory.
    """
    strips = logit_strips(network, images, tiling, progress=progress)
    return torch.cat(list(map(_most_likely, strips)), dim=1)  # map keeps no strip alive


def _most_likely(logits: Tensor) -> Tensor:
    return logits.argmax(1).to(torch.uint8)


def logit_strips(network: Network, images: Tensor, tiling: Tiling, *, progress: bool = False) -> Iterator[Tensor]:
    """The logits of `images` from top to bottom, as strips (N, K, rows, W) float32 on the CPU."""
    height, width = images.shape[-2:]
    rows, columns = tiling.cuts(height), tiling.cuts(width)
    total = len(rows) * len(columns)
    unfinished: Tensor | None = None
    # The delay keeps short work silent; disable=None keeps everything silent where nobody watches.
    with tqdm(total=total, unit="window", leave=False, delay=2, disable=None if progress else True) as bar:
        for row, after in zip(rows, [*rows[1:], None], strict=True):
            band = _band(network, images, row, columns, tiling, bar.update)
            if unfinished is not None:
                band[:, :, : unfinished.shape[2]] += unfinished
            finished = (after.start if after else row.stop) - row.start
            strip, unfinished = band[:, :, :finished], band[:, :, finished:].clone()
            del band
            yield strip
            del strip  # so that the last band is gone before the next one is made


def _cuts(length: int, edge: int, overlap: int) -> list[_Cut]:
    """Positions of a window of constant size, evenly spread, the last one ending where the axis ends."""
    if edge >= length:
        return [_Cut(0, length, torch.ones(length))]
    steps = math.ceil((length - edge) / (edge - overlap))
    starts = [round(i * (length - edge) / steps) for i in range(steps + 1)]
    ramp = torch.sin((torch.arange(edge, dtype=torch.float64) + 0.5) * (math.pi / edge)) ** 2
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + edge] += ramp
    return [_Cut(s, s + edge, (ramp / total[s : s + edge]).float()) for s in starts]


def _band(
    network: Network,
    images: Tensor,
    row: _Cut,
    columns: Sequence[_Cut],
    tiling: Tiling,
    advance: Callable[[int], object],
) -> Tensor:
    """Weighted logits of one row of windows, (N, K, rows, W)."""
    edges = (row.stop - row.start, columns[0].stop - columns[0].start)
    pixels = images.shape[0] * edges[0] * edges[1] * tiling.input_scale**2
    together = max(1, int(PIXELS_PER_PASS / pixels))
    band: Tensor | None = None
    for first in range(0, len(columns), together):
        group = columns[first : first + together]
        windows = torch.cat([images[:, :, row.start : row.stop, c.start : c.stop] for c in group])
        logits = _window_logits(network, windows.float(), tiling.input_scale)
        if band is None:
            band = torch.zeros(images.shape[0], logits.shape[1], edges[0], images.shape[-1])
        for cut, part in zip(group, logits.chunk(len(group)), strict=True):
            band[..., cut.start : cut.stop].addcmul_(part, row.weights[:, None] * cut.weights)
        advance(len(group))
    assert band is not None  # there is always a column
    return band


@torch.no_grad()
def _window_logits(network: Network, windows: Tensor, input_scale: float) -> Tensor:
    """Logits at the size of `windows`, on the CPU, from a network that sees them enlarged and padded."""
    height, width = windows.shape[-2:]
    enlarged = (max(1, round(height * input_scale)), max(1, round(width * input_scale)))
    if enlarged != (height, width):
        windows = F.interpolate(windows, enlarged, mode="bilinear", align_corners=False)
    padding = [max(0, MIN_EDGE - edge) for edge in enlarged]
    if any(padding):
        windows = F.pad(windows, (0, padding[1], 0, padding[0]), mode="replicate")
    logits = network(windows)[..., : enlarged[0], : enlarged[1]].float()
    if enlarged != (height, width):
        logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
    return logits.cpu()
