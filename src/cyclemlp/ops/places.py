"""Reading a map between its positions, along one axis: where from, what each neighbour weighs, and the gradients.

A place lies between two neighbours along its axis, and each weighs 1 less its distance. In eager code each group of
channels at each position is a bag of two weighted rows of the map (`Taps`), which torch's `embedding_bag` adds up in
one pass; what follows from the offsets is computed once for all layers that share them. Recorded graphs hold
`grid_sample` instead (`Grid`): in ONNX Runtime it takes half the time of gathering, in OpenVINO three quarters.
"""

from math import prod
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclemlp.ops.precision import at_least_float32
from cyclemlp.ops.shift import is_recorded

Axis = Literal["height", "width"]
AXES = ("height", "width")


class Taps(NamedTuple):
    """What to read for each position and group of channels: two rows of the map, seen as (-1, channels of a group)."""

    index_n2: Tensor
    weight_n2: Tensor


class Grid(NamedTuple):
    """The same in recorded graphs: places for `grid_sample`, (batch, groups, height, width, 2)."""

    places: Tensor


def read_places(offset_nhwg: Tensor, axis: Axis, dilation: int = 1) -> Taps | Grid:
    """Where layers read that have these offsets in common.

    Args:
        offset_nhwg: (batch, height, width, groups), in positions along `axis`; gradients flow back to it.
        axis: 'height' or 'width'.
        dilation: factor for all offsets, 1 or more.

    Raises:
        ValueError: another axis or dilation.
    """
    if axis not in AXES or dilation < 1:
        raise ValueError(f"axis is {axis!r}, dilation {dilation}; allowed are 'height' or 'width', and 1 or more")
    dim = AXES.index(axis) + 1
    own = torch.arange(offset_nhwg.shape[dim], device=offset_nhwg.device).view(-1, *[1] * (3 - dim))
    # Half precision has too few digits for places.
    place = offset_nhwg.to(at_least_float32(offset_nhwg)) * dilation + own
    if is_recorded():
        return _grid(place, dim)
    integers = torch.int32 if place.numel() < 2**31 else torch.int64
    # The lower of two neighbours inside the image: nothing outside is read. Not-a-number becomes a number here.
    first = place.detach().floor().to(integers).clamp(0, max(len(own) - 2, 0))
    weight = _weights(place - first)
    if len(own) == 1:  # there is no second neighbour
        weight = weight * weight.new_tensor([1, 0])
    rows = torch.arange(place.numel(), dtype=integers, device=place.device).view(place.shape)
    step = prod(place.shape[dim + 1 :])
    lower = (first - own.to(integers)).mul_(step).add_(rows)
    return Taps(torch.stack([lower, lower + step * (len(own) > 1)], -1).view(-1, 2), weight.view(-1, 2))


def read(x_nhwc: Tensor, places: Taps | Grid) -> Tensor:
    """The input interpolated at `places`: the same shape. Raises ValueError where the places are those of another."""
    if isinstance(places, Grid):
        return _sampled(x_nhwc, places.places)
    index, weight = places
    if x_nhwc.numel() % max(len(index), 1) or x_nhwc.numel() < len(index):
        raise ValueError(f"input {tuple(x_nhwc.shape)} does not fit offsets of {len(index)} positions and groups")
    if not x_nhwc.numel():
        return x_nhwc
    # The compiler takes no function with a forward derivative, and joins the passes of the plain form into one.
    how = _gathered if torch.compiler.is_compiling() else _Read.apply
    return how(x_nhwc, index, weight.to(x_nhwc.dtype))


def _weights(ahead: Tensor) -> Tensor:
    if not torch.compiler.is_compiling():
        return _TapWeights.apply(ahead)
    # The compiler takes no function with a forward derivative: the same values and slopes in plain steps.
    away = torch.stack([ahead, ahead - 1], -1)
    return (1 - away.abs()).clamp_min(0).detach() + _slopes(ahead) * (away - away.detach())


class _TapWeights(torch.autograd.Function):
    """What two neighbours weigh, (..., 2), for places `ahead` of the first: 1 less the distance, and never below 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(ahead: Tensor) -> Tensor:
        return torch.stack([ahead, ahead - 1], -1).abs_().neg_().add_(1).clamp_min_(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return (grad * _slopes(*ctx.saved_tensors)).sum(-1)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent[..., None] * _slopes(*ctx.saved_tensors)


def _slopes(ahead: Tensor) -> Tensor:
    """Of the weights: at a whole number those of the interval above, as in the deformable convolution."""
    away = torch.stack([ahead, ahead - 1], -1)
    return torch.where(away < 0, 1.0, -1.0).masked_fill((away < -1) | (away >= 1), 0).to(ahead.dtype)


def _gathered(x_nhwc: Tensor, index_n2: Tensor, weight_n2: Tensor) -> Tensor:
    rows = x_nhwc.reshape(len(index_n2), -1)
    low, high = (rows.index_select(0, index_n2[:, k]) * weight_n2[:, k, None] for k in (0, 1))
    return (low + high).view(x_nhwc.shape)


class _Read(torch.autograd.Function):
    """`_gathered` in one pass."""

    @staticmethod
    def forward(x_nhwc: Tensor, index_n2: Tensor, weight_n2: Tensor) -> Tensor:
        rows = x_nhwc.reshape(len(index_n2), -1)
        return F.embedding_bag(index_n2, rows, per_sample_weights=weight_n2, mode="sum").view(x_nhwc.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        x, index, weight = ctx.saved_tensors
        rows, grad_rows = x.reshape(len(index), -1), grad.reshape(len(index), -1)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.zeros_like(rows)
            for k in (0, 1):  # 64 bits, because for others index_add takes ten times as long
                grad_x = grad_x.index_add(0, index[:, k].long(), grad_rows * weight[:, k, None])
            grad_x = grad_x.view(x.shape)
        if ctx.needs_input_grad[2]:
            ones = rows.new_ones(rows.shape[1])  # for a few channels, a product is the faster sum
            grad_weight = torch.stack([rows.index_select(0, index[:, k]).mul(grad_rows) @ ones for k in (0, 1)], -1)
        return grad_x, None, grad_weight

    @staticmethod
    def jvp(ctx: Any, x_tangent: Tensor | None, _: None, weight_tangent: Tensor | None) -> Tensor:
        x, index, weight = ctx.saved_tensors
        out = torch.zeros_like(x) if x_tangent is None else _gathered(x_tangent, index, weight)
        return out if weight_tangent is None else out + _gathered(x, index, weight_tangent)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Tensor, int]:  # noqa: ARG004
        return torch.vmap(_gathered, in_dims)(*tensors), 0


def _grid(place: Tensor, dim: int) -> Grid:
    """(column, row) of each place, where the image's edges are at -1 and 1."""
    along = [torch.arange(place.shape[k]).to(place).view(-1, *[1] * (3 - k)) for k in (2, 1)]
    along[2 - dim] = place
    scaled = [(2 * each + 1) / place.shape[k] - 1 for each, k in zip(along, (2, 1), strict=True)]
    return Grid(torch.stack([each.expand(place.shape) for each in scaled], -1).permute(0, 3, 1, 2, 4))


def _sampled(x_nhwc: Tensor, places: Tensor) -> Tensor:
    batch, height, width, channels = x_nhwc.shape
    groups = places.shape[1]
    images = x_nhwc.permute(0, 3, 1, 2).reshape(batch * groups, channels // groups, height, width)
    out = F.grid_sample(images, places.flatten(0, 1).to(x_nhwc.dtype), padding_mode="zeros", align_corners=False)
    return out.view(batch, channels, height, width).permute(0, 2, 3, 1)
