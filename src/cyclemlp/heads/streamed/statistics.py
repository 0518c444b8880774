"""Means over all positions of an image, for layers that see it in windows.

The layers that need one are given a stand-in for the method that takes it. As long as the mean is not known, the
stand-in adds up what it is given and ends the window there; once the whole image has passed it returns the mean.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from cyclemlp.heads.streamed.maps import Size
from cyclemlp.models.branches import BranchedMixer
from cyclemlp.models.cyclemlp import WeightedMixer
from cyclemlp.models.forms.fused_mixer import BlendedMixer
from cyclemlp.models.patches import GroupNormNHWC

StandIn = Callable[[Any], Tensor]
"""What takes the place of a method of a module."""


class Gathered(Exception):  # noqa: N818
    """A window has been added to a mean that is not known yet: nothing after it can be computed."""

    def __init__(self, mean: "ImageMean") -> None:
        super().__init__()
        self.mean = mean


class Core:
    """Which part of the window that is being computed is its own: the rest belongs to neighbours."""

    def __init__(self) -> None:
        self.rows = self.columns = slice(None)

    def of(self, x_nhwc: Tensor) -> Tensor:
        """The own part of (1, height, width, channels)."""
        return x_nhwc[:, self.rows, self.columns]


class ImageMean:
    """Means over the positions of an image whose windows come one after the other."""

    def __init__(self, core: Core, size: Size) -> None:
        self._core, self._positions = core, size[0] * size[1]
        self._total: Tensor | None = None
        self._value: Tensor | None = None

    @property
    def known(self) -> bool:
        """Whether the whole image has passed."""
        return self._value is not None

    def of(self, parts: Sequence[Tensor]) -> Tensor:
        """Means (1, channels) of windows (1, height, width, channels). Raises Gathered as long as it is unknown."""
        if self._value is not None:
            return self._value
        sums = torch.cat([self._core.of(part).sum((1, 2), dtype=most_precise(part)) for part in parts], -1)
        self._total = sums if self._total is None else self._total + sums
        raise Gathered(self)

    def finish(self) -> None:
        """The whole image has passed."""
        assert self._total is not None  # there is always a window
        self._value = self._total / self._positions


def most_precise(x: Tensor) -> torch.dtype:
    """Float64, where the device of a tensor has it."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def with_image_means(module: nn.Module, core: Core, size: Size) -> tuple[nn.Module, list[ImageMean]]:
    """A copy of a module that shares its weights and takes its means over a whole map of `size`, and those means."""
    shared = {id(tensor): tensor for tensor in chain(module.parameters(), module.buffers())}
    copy = deepcopy(module, shared)
    means = []
    for name, each, stand_in in _methods(copy.modules()):
        mean = ImageMean(core, size)
        setattr(each, name, stand_in(mean))
        means.append(mean)
    return copy, means


def _methods(modules: Iterable[nn.Module]) -> Iterator[tuple[str, nn.Module, Callable[[ImageMean], StandIn]]]:
    """The methods that take a mean over positions, by name, and what makes a stand-in for each."""
    for module in modules:
        if isinstance(module, WeightedMixer | BranchedMixer):
            yield "position_mean", module, _of_map
        elif isinstance(module, BlendedMixer):
            yield "means", module, _of_columns
        elif isinstance(module, GroupNormNHWC):
            yield "forward", module, partial(_norm, module)


def _of_map(mean: ImageMean) -> StandIn:
    """For `WeightedMixer.position_mean`."""
    return lambda x_nhwc: mean.of([x_nhwc]).to(x_nhwc.dtype)


def _of_columns(mean: ImageMean) -> StandIn:
    """For `FusedMixer.means`."""
    return lambda factors: mean.of(factors).to(factors[0].dtype)


def _norm(norm: GroupNormNHWC, mean: ImageMean) -> StandIn:
    """For `GroupNormNHWC.forward`: by the mean over positions and channels, and that of the squares."""

    def normalised(x_nhwc: Tensor) -> Tensor:
        x = x_nhwc.to(most_precise(x_nhwc))
        first, second = (each.mean() for each in mean.of([x, x * x]).chunk(2, -1))
        scale = (second - first * first + norm.eps).rsqrt()
        return ((x - first) * scale * norm.weight + norm.bias).to(x_nhwc.dtype)

    return normalised
