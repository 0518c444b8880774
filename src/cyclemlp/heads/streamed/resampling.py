"""Interpolation between maps of two sizes, for any part of the new one as over the whole."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Places = npt.NDArray[np.intp]
Shares = npt.NDArray[np.float32]
Taps = Callable[[int, int, tuple[int, int]], tuple[Places, Shares]]
"""From the length of an axis, its new length, and a span of the new one: what each of its positions is made of, as
(positions, taps) places and shares."""


def bilinear(given: int, length: int, span: tuple[int, int]) -> tuple[Places, Shares]:
    """As torch's bilinear `interpolate` without aligned corners."""
    at = np.maximum((np.arange(*span) + 0.5) * (given / length) - 0.5, 0)
    before = at.astype(np.intp)
    share = (at - before).astype(np.float32)
    return np.stack([before, np.minimum(before + 1, given - 1)], -1), np.stack([1 - share, share], -1)


def nearest(given: int, length: int, span: tuple[int, int]) -> tuple[Places, Shares]:
    """As torch's nearest `interpolate`, which is asked, since its rounding decides at halves."""
    numbers = torch.arange(given, dtype=torch.float64)[None, None]
    places = F.interpolate(numbers.float(), size=length, mode="nearest")[0, 0, slice(*span)]
    return places.numpy().astype(np.intp)[:, None], np.ones((span[1] - span[0], 1), np.float32)


def repeated(given: int, length: int, span: tuple[int, int]) -> tuple[Places, Shares]:  # noqa: ARG001
    """The last position again and again."""
    return np.minimum(np.arange(*span), given - 1)[:, None], np.ones((span[1] - span[0], 1), np.float32)


def antialiased(given: int, length: int, span: tuple[int, int]) -> tuple[Places, Shares]:
    """As `cyclemlp.data.resizing.resize_bilinear` with `antialias`: means over all that a new position covers."""
    if length >= given:
        return bilinear(given, length, span)
    scale = given / length
    centres = (np.arange(*span) + 0.5) * scale
    places = np.floor(centres - scale).astype(np.intp)[:, None] + np.arange(2 * math.ceil(scale) + 1)
    shares = np.maximum(1 - np.abs(places + 0.5 - centres[:, None]) / scale, 0) * ((places >= 0) & (places < given))
    shares /= shares.sum(axis=1, keepdims=True)
    return places.clip(0, given - 1), shares.astype(np.float32)


def gathered(x: Tensor, dim: int, places: Places, shares: Shares) -> Tensor:
    """Sums of shares of positions along an axis of `x` (1, height, width, channels)."""
    shape = [-1 if axis == dim else 1 for axis in range(x.ndim)]
    total: Tensor | None = None
    for index, share in zip(places.T, shares.T, strict=True):
        part = x.index_select(dim, torch.from_numpy(np.ascontiguousarray(index)).to(x.device))
        if places.shape[1] > 1:
            part *= torch.from_numpy(np.ascontiguousarray(share)).to(x.device).view(shape)
        total = part if total is None else total.add_(part)
    assert total is not None  # there is always a tap
    return total
