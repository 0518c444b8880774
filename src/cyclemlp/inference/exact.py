"""The maps of the image in one piece, in memory that does not grow with it: block by block, on disk.

Windows that pass through the whole network see less than the image: near a border, and in means over all positions.
Here each block of the network passes over the whole image before the next one does (`cyclemlp.heads.streamed`), so
that what it needs of its neighbourhood, and of the whole image, is known. This module imports torch.
"""

import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cyclemlp.errors import ConfigError, DataError
from cyclemlp.heads.network import Network
from cyclemlp.heads.streamed.backbone import UnknownLayerError
from cyclemlp.heads.streamed.maps import Cropped, Map, Pointwise, Span, resampled, spans
from cyclemlp.heads.streamed.resampling import antialiased, bilinear, repeated
from cyclemlp.heads.streamed.segmentation import logits_map
from cyclemlp.heads.streamed.work import Estimate, Work
from cyclemlp.inference.runtimes.torch import TorchNetwork
from cyclemlp.inference.tiling import MIN_EDGE, NOT_FINITE, Planes
from cyclemlp.progress import progress_bar
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.looks import FloatArray

WHAT_WORKS = "it is for run folders of cyclemlp_*, activemlp_* and asmlp_* with the head semantic-fpn or upernet"


def check_exact(network: Network) -> None:
    """Raise ConfigError for a network that cannot be computed block by block."""
    found = type(network).__name__  # such as Pt2Network
    if type(network) is TorchNetwork and isinstance(network.module, nn.Module):
        try:
            logits_map(network.module, _Image(np.zeros((1, 3, 64, 64), np.float32), network.device), Estimate())
        except UnknownLayerError as error:
            found = str(error)
        else:
            return
    raise ConfigError(f"--exact does not know {found}: {WHAT_WORKS}; leave it out")


def exact_strips(
    network: Network,
    card: ModelCard,
    images: npt.NDArray[Any] | Planes,
    input_scale: float,
    edge: int,
    *,
    first: int = 0,
    progress: bool = False,
) -> Iterator[FloatArray]:
    """The network's maps at the size of `images` (1, C, H, W), as strips (1, K, rows, W) of `edge` rows.

    They are computed in windows of that edge. The first ones are left out. Raises ConfigError where the disk is too
    small, DataError where the network's output is not finite.
    """
    assert isinstance(network, TorchNetwork)  # `check_exact` has seen it
    height, width = images.shape[-2:]
    size = (max(1, round(height * input_scale)), max(1, round(width * input_scale)))
    estimate = estimated(network, card, images, size)
    _check_space(estimate.peak_bytes)
    rows, columns = list(spans(height, edge))[first:], list(spans(width, edge))
    total = estimate.windows + len(rows) * len(columns)
    with progress_bar(what="whole image, block by block", unit="windows", total=total, shown=progress) as bar:
        maps = _maps(network, card, images, size, Work(network.device, bar.update))
        for row in rows:
            strip = np.empty((1, maps.channels, row[1] - row[0], width), np.float32)
            for column in columns:
                strip[..., slice(*column)] = _window(maps, row, column)
                bar.update(1)
            if not np.isfinite(strip).all():
                raise DataError(NOT_FINITE)
            yield strip


def estimated(
    network: TorchNetwork, card: ModelCard, images: npt.NDArray[Any] | Planes, size: tuple[int, int]
) -> Estimate:
    """The windows and the bytes of temporary files that `images` (1, C, H, W), seen at `size`, will take."""
    estimate = Estimate()
    _maps(network, card, images, size, estimate)
    return estimate


@torch.no_grad()
def _maps(
    network: TorchNetwork, card: ModelCard, images: npt.NDArray[Any] | Planes, size: tuple[int, int], work: Work
) -> Map:
    """Logits at the size of `images`, of a network that sees them at `size`: as in `tiling.py`, in one piece."""
    assert isinstance(network.module, nn.Module)
    seen = resampled(_Image(images, network.device), size, antialiased)
    height, width = (max(MIN_EDGE, edge) for edge in size)
    seen = Pointwise(resampled(seen, (height, width), repeated), lambda x: _normalised(card, x))
    logits = logits_map(network.module, seen, work)
    given = images.shape[-2], images.shape[-1]
    return resampled(Cropped(logits, size), given, bilinear)


@torch.no_grad()
def _window(maps: Map, rows: Span, columns: Span) -> FloatArray:
    return maps.read(rows, columns).float().cpu().numpy()


def _normalised(card: ModelCard, x: Tensor) -> Tensor:
    return torch.from_numpy(card.normalised(x.cpu().numpy())).to(x.device)


class _Image(Map):
    """An image (1, C, H, W) of which windows are read."""

    def __init__(self, images: npt.NDArray[Any] | Planes, device: torch.device) -> None:
        _, channels, height, width = images.shape
        super().__init__((height, width), channels)
        self._images, self._device = images, device

    def read(self, rows: Span, columns: Span) -> Tensor:
        window = slice(*rows), slice(*columns)
        images = self._images
        found = images[:, :, window[0], window[1]] if isinstance(images, np.ndarray) else images.window(*window)
        return torch.from_numpy(np.ascontiguousarray(found, np.float32)).to(self._device)


def _check_space(needed: int) -> None:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needed > free:
        what = f"needs {needed / 1e9:.1f} GB of temporary files, and {folder} has {free / 1e9:.1f} GB free"
        raise ConfigError(f"--exact {what}: set TMPDIR to a folder with more, or leave it out")
