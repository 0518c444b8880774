r"""The training form that keeps less: the token mixer's weighted branches, and the second half of the channel MLP.

`lean_(model)` switches to it, `plain_(model)` back; values, gradients and state dict stay the same.

Plain autograd keeps, of every block, three branches (to differentiate the branch weights a) and the hidden activations
before and after GELU. Most of that is not needed. The weighted branches are linear in what the staircases read,

    mixed = a_h * (x_W Wh^T + bh) + a_w * (x_H Ww^T + bw) + a_c * (x Wc^T),

so with the gradient g of `mixed` and the products G = g^T x_W, ... of each image (output x input channels)

    d/da_h = rowsum(Wh * G) + bh * sum(g),       d/dWh = sum over the images of a_h * G,       and so on:

the branches appear nowhere. Forward and backward are products over [x, moved part of x_W, moved part of x_H] as in the
exact inference form, with fewer multiply-adds than three branches take. Where a map has fewer positions than channels
the G are larger than the branches they replace, and the plain form is used. GELU is applied again in the backward pass.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from cyclemlp.models.cyclemlp import CycleBlock, CycleMixer
from cyclemlp.ops import CycleFC
from cyclemlp.ops.cycle_fc import cycle_plan
from cyclemlp.ops.precision import at_least_float32, in_autocast_type
from cyclemlp.ops.shift import Plan, add_back, only_moved, read_moved, shift

Model = TypeVar("Model", bound=nn.Module)
NO_FORWARD_DERIVATIVES = (
    "the lean form has backward derivatives alone; call cyclemlp.plain_(model) before jvp or another forward derivative"
)


def lean_(model: Model) -> Model:
    """Let the CycleMLP blocks inside `model` keep less for the backward pass; returns the model, changed in place.

    Values and gradients stay the same up to rounding, and the state dict stays as it is. While gradients are recorded,
    the layers inside a mixer or a channel MLP are no longer called one by one, so hooks on them do not run.
    """
    for module in model.modules():
        if type(module) is CycleMixer:
            module.__class__ = LeanMixer
        elif isinstance(module, CycleBlock) and type(module.channel_mlp) is Mlp:
            module.channel_mlp.__class__ = LeanMlp
    return model


def plain_(model: Model) -> Model:
    """Undo `lean_`: every layer of `model` is called again; returns the model, changed in place."""
    for module in model.modules():
        if plain := _PLAIN.get(type(module)):
            module.__class__ = plain
    return model


class LeanMixer(CycleMixer):
    """`CycleMixer` without its three branches in memory."""

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> the same."""
        width, height, channels = self.along_width, self.along_height, self.along_channels
        many_positions = x_nhwc.shape[1] * x_nhwc.shape[2] >= x_nhwc.shape[3] and self.stepsize > 1
        own_layers = type(width) is type(height) is CycleFC and type(channels) is nn.Linear  # none was replaced
        if not (many_positions and own_layers and pays(x_nhwc)):
            return super().forward(x_nhwc)
        mean_width, mean_height, mean_channels = shifted_means(x_nhwc, self.stepsize, self.dilation).unbind(1)
        mean_nc = F.linear(mean_width, width.weight, width.bias) + F.linear(mean_height, height.weight, height.bias)
        weights = self.branch_weights(mean_nc + channels(mean_channels)).flatten(0, 2).transpose(1, 2)
        branches = (width.weight, width.bias, height.weight, height.bias, channels.weight)
        return self.proj(weighted_branches(x_nhwc, weights, branches, self.stepsize, self.dilation))


class LeanMlp(Mlp):  # type: ignore[misc]
    """timm's Mlp with GELU and no dropout, of which training keeps only the activations before GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels) -> the same."""
        if not pays(x) or type(self.fc2) is not nn.Linear:
            return super().forward(x)
        return _GeluLinear.apply(*in_autocast_type(self.fc1(x), self.fc2.weight, self.fc2.bias))


_PLAIN: dict[type[nn.Module], type[nn.Module]] = {LeanMixer: CycleMixer, LeanMlp: Mlp}


def pays(x: Tensor) -> bool:
    """Whether anything is kept for a backward pass; the compiler finds out by itself what to recompute."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling() and x.numel() > 0 and not x.is_meta


def shifted_means(x_nhwc: Tensor, stepsize: int, dilation: int = 1) -> Tensor:
    """Means over positions of what staircases along width and height and a channel FC read: (batch, 3, channels)."""
    rows, columns = (x_nhwc.sum(axis, keepdim=True, dtype=at_least_float32(x_nhwc)) for axis in (2, 1))
    along_width, along_height = _cycles(x_nhwc.shape[-1], stepsize, dilation)
    # A shift along one axis commutes with the sum along the other, of which it moves far less.
    sums = shift(columns, along_width), shift(rows, along_height), rows
    return (torch.stack([each.sum((1, 2)) for each in sums], 1) / (x_nhwc.shape[1] * x_nhwc.shape[2])).to(x_nhwc.dtype)


def weighted_branches(
    x_nhwc: Tensor, weights: Tensor, branches: Sequence[Tensor], stepsize: int, dilation: int = 1
) -> Tensor:
    """The sum of the branches times their weights, keeping `x_nhwc` alone.

    Args:
        x_nhwc: (batch, height, width, channels).
        weights: (batch, 3, channels) for the branches along width, height and channels.
        branches: weight (out, in) and bias (out) of the CycleFC along the width, those of the one along the height, and
            the weight (out, in) of the channel FC.
        stepsize: of both staircases, more than 1.
        dilation: of both.
    """
    both = _staircases(x_nhwc.shape[-1], stepsize, dilation)
    return _WeightedBranches.apply(*in_autocast_type(x_nhwc, weights, *branches), both)


class _Staircases(NamedTuple):
    """Both staircases of a mixer over the channels in the model's order."""

    moved: Plan
    """What moves along the width, then what moves along the height."""
    still: list[int]
    moving: list[int]
    """Channels, in the order of the moved part along one axis."""


def _cycles(channels: int, stepsize: int, dilation: int) -> tuple[Plan, Plan]:
    return cycle_plan(channels, (1, stepsize), dilation), cycle_plan(channels, (stepsize, 1), dilation)


@lru_cache
def _staircases(channels: int, stepsize: int, dilation: int) -> _Staircases:
    along_width, along_height = _cycles(channels, stepsize, dilation)
    moving = [c for move in along_width if move.moves for c in range(channels)[move.source]]
    still = sorted(set(range(channels)) - set(moving))
    return _Staircases(only_moved(along_width + along_height, channels), still, moving)


def _matrices(weights: Tensor, wh: Tensor, ww: Tensor, wc: Tensor, both: _Staircases) -> tuple[Tensor, Tensor]:
    """The weights of each image: (out, channels) for x, (out, 2 * moving) for the moved part."""
    a_h, a_w, a_c = (weights[:, k, :, None] for k in range(3))
    unmoved = wc * a_c
    unmoved[..., both.still] += wh[:, both.still] * a_h + ww[:, both.still] * a_w
    return unmoved, torch.cat([wh[:, both.moving] * a_h, ww[:, both.moving] * a_w], -1)


class _WeightedBranches(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, weights: Tensor, wh: Tensor, bh: Tensor, ww: Tensor, bw: Tensor, wc: Tensor, both: _Staircases
    ) -> Tensor:
        unmoved, moved = _matrices(weights, wh, ww, wc, both)
        bias = (weights[:, 0] * bh + weights[:, 1] * bw)[:, None]
        out = torch.baddbmm(bias, x.flatten(1, 2), unmoved.transpose(1, 2))
        return out.baddbmm_(read_moved(x, both.moved).flatten(1, 2), moved.transpose(1, 2)).view(*x.shape[:3], -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        *tensors, ctx.both = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weights, wh, bh, ww, bw, wc = ctx.saved_tensors
        both: _Staircases = ctx.both
        g = grad.flatten(1, 2)
        unmoved, moved = _matrices(weights, wh, ww, wc, both)
        grad_moved = (g @ moved).view(*x.shape[:3], -1)
        grad_x = add_back((g @ unmoved).view(x.shape), grad_moved, both.moved)
        products = g.transpose(1, 2) @ x.flatten(1, 2)
        along_width, along_height = (g.transpose(1, 2) @ read_moved(x, both.moved).flatten(1, 2)).chunk(2, -1)
        sums, still = g.sum(1), products[..., both.still]
        grad_a_h, grad_wh = _branch_gradients(weights[:, 0], wh, still, along_width, both)
        grad_a_w, grad_ww = _branch_gradients(weights[:, 1], ww, still, along_height, both)
        grad_weights = torch.stack([grad_a_h + bh * sums, grad_a_w + bw * sums, (wc * products).sum(-1)], 1)
        grad_bh, grad_bw = (weights[:, 0] * sums).sum(0), (weights[:, 1] * sums).sum(0)
        grad_wc = torch.einsum("bo,boi->oi", weights[:, 2], products)
        return grad_x, grad_weights, grad_wh, grad_bh, grad_ww, grad_bw, grad_wc, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        raise NotImplementedError(NO_FORWARD_DERIVATIVES)


def _branch_gradients(
    a: Tensor, weight: Tensor, still: Tensor, moving: Tensor, both: _Staircases
) -> tuple[Tensor, Tensor]:
    """Gradients of the branch weights (batch, out), without the bias's part, and of the weight (out, in)."""
    grad_a = (weight[:, both.still] * still).sum(-1) + (weight[:, both.moving] * moving).sum(-1)
    grad_weight = torch.empty_like(weight)
    grad_weight[:, both.still] = torch.einsum("bo,boi->oi", a, still)
    grad_weight[:, both.moving] = torch.einsum("bo,boi->oi", a, moving)
    return grad_a, grad_weight


class _GeluLinear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(F.gelu(hidden), weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        grad_hidden = torch.ops.aten.gelu_backward(grad @ weight, hidden)
        return grad_hidden, rows.t() @ F.gelu(hidden).flatten(0, -2), rows.sum(0)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        raise NotImplementedError(NO_FORWARD_DERIVATIVES)
