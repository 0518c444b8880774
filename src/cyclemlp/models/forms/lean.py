r"""Training that keeps less: the token mixer's weighted branches, and the second half of the channel MLP.

Plain autograd keeps, of every block, three branches (to differentiate the branch weights a) and the hidden activations
before and after GELU. Most of that is not needed. The weighted branches are linear in what the staircases read,

    mixed = a_h * (x_W Wh^T + bh) + a_w * (x_H Ww^T + bw) + a_c * (x Wc^T),

so with the gradient g of `mixed` and the products G = g^T x_W, ... of each image (output x input channels)

    d/da_h = rowsum(Wh * G) + bh * sum(g),       d/dWh = sum over the images of a_h * G,       and so on:

the branches appear nowhere. Forward and backward are products over [x, moved part of x_W, moved part of x_H] as in the
exact inference form, with fewer multiply-adds than three branches take. Where a map has fewer positions than channels
the G are larger than the branches they replace, and the plain form is used. GELU is applied again in backward.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor

from cyclemlp.ops.cycle_fc import cycle_offsets


class LeanMlp(Mlp):  # type: ignore[misc]
    """timm's Mlp with GELU and no dropout, of which training keeps the activations before GELU alone."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels) -> the same."""
        if not pays(x):
            plain: Tensor = super().forward(x)
            return plain
        out: Tensor = _GeluLinear.apply(*in_autocast_type(self.fc1(x), self.fc2.weight, self.fc2.bias))
        return out


def pays(x: Tensor) -> bool:
    """Whether something is kept for a backward pass at all; the compiler finds what to recompute by itself."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling() and x.numel() > 0 and not x.is_meta


def in_autocast_type(*tensors: Tensor) -> list[Tensor]:
    """The tensors in autocast's type where it is on, so that those kept for the backward pass are the small ones."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [tensor.to(dtype) for tensor in tensors]


def shifted_means(x_nhwc: Tensor, stepsize: int) -> Tensor:
    """Means over positions of what the staircase along the width, along the height, and a channel FC read.

    Args:
        x_nhwc: (batch, height, width, channels).
        stepsize: of both staircases.

    Returns:
        (batch, 3, channels), summed in float32 at least and given in the type of `x_nhwc`.
    """
    means: Tensor = _ShiftedMeans.apply(x_nhwc, stepsize)
    return means


def weighted_branches(
    x_nhwc: Tensor,
    weights: Tensor,
    along_width: tuple[Tensor, Tensor],
    along_height: tuple[Tensor, Tensor],
    along_channels: Tensor,
    stepsize: int,
) -> Tensor:
    """The sum of the branches times their weights, keeping `x_nhwc` alone.

    Args:
        x_nhwc: (batch, height, width, channels).
        weights: (batch, 3, channels) for the branches along width, height and channels.
        along_width, along_height: weight (out, in) and bias (out) of the two CycleFC.
        along_channels: weight (out, in).
        stepsize: of both staircases, more than 1.
    """
    tensors = in_autocast_type(x_nhwc, weights, *along_width, *along_height, along_channels)
    out: Tensor = _WeightedBranches.apply(*tensors, stepsize)
    return out


class _Group(NamedTuple):
    """Channels `of_x` are read `offset` positions further along `dim`; among all that move they are `of_moved`."""

    dim: int
    offset: int
    of_x: slice
    of_moved: slice

    def narrowed(self, length: int) -> tuple[int, int, int, int, int]:
        """Along an axis: (positions kept, first written, first read, first left empty, first read by none)."""
        kept = max(length - abs(self.offset), 0)
        gone = length - kept
        return (kept, 0, gone, kept, 0) if self.offset > 0 else (kept, gone, 0, 0, kept)


class _Plan(NamedTuple):
    groups: tuple[_Group, ...]
    still: list[int]
    moving: list[int]
    """Channels, in the order of the moved part along one axis."""


@lru_cache
def _plan(channels: int, stepsize: int) -> _Plan:
    groups, place = [], 0
    for dim in (2, 1):
        for residue in range(min(stepsize, channels)):
            offset = cycle_offsets(residue, (1, stepsize))[1]
            count = len(range(residue, channels, stepsize))
            if offset:
                groups.append(_Group(dim, offset, slice(residue, None, stepsize), slice(place, place + count)))
                place += count
    moving = [c for group in groups if group.dim == 2 for c in range(channels)[group.of_x]]
    return _Plan(tuple(groups), sorted(set(range(channels)) - set(moving)), moving)


def _moved(x: Tensor, plan: _Plan) -> Tensor:
    """What moves, read along the width, then along the height: (batch, height * width, 2 * moving)."""
    out = x.new_empty((*x.shape[:3], 2 * len(plan.moving)))
    for group in plan.groups:
        kept, to, source, empty, _ = group.narrowed(x.shape[group.dim])
        part = out[..., group.of_moved]
        part.narrow(group.dim, to, kept).copy_(x[..., group.of_x].narrow(group.dim, source, kept))
        part.narrow(group.dim, empty, x.shape[group.dim] - kept).zero_()
    return out.flatten(1, 2)


def _move_back(total: Tensor, moved: Tensor, plan: _Plan) -> Tensor:
    """`total` plus the adjoint of `_moved`, in place."""
    moved = moved.view(*total.shape[:3], -1)
    for group in plan.groups:
        kept, to, source, _, _ = group.narrowed(total.shape[group.dim])
        part = moved[..., group.of_moved].narrow(group.dim, to, kept)
        total[..., group.of_x].narrow(group.dim, source, kept).add_(part)
    return total


def _matrices(weights: Tensor, wh: Tensor, ww: Tensor, wc: Tensor, plan: _Plan) -> tuple[Tensor, Tensor]:
    """Of each image: (out, channels) for x, (out, 2 * moving) for the moved part."""
    a_h, a_w, a_c = (weights[:, k, :, None] for k in range(3))
    unmoved = wc * a_c
    unmoved[..., plan.still] += wh[:, plan.still] * a_h + ww[:, plan.still] * a_w
    return unmoved, torch.cat([wh[:, plan.moving] * a_h, ww[:, plan.moving] * a_w], -1)


class _WeightedBranches(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, weights: Tensor, wh: Tensor, bh: Tensor, ww: Tensor, bw: Tensor, wc: Tensor, stepsize: int
    ) -> Tensor:
        plan = _plan(x.shape[-1], stepsize)
        unmoved, moved = _matrices(weights, wh, ww, wc, plan)
        bias = (weights[:, 0] * bh + weights[:, 1] * bw)[:, None]
        out = torch.baddbmm(bias, x.flatten(1, 2), unmoved.transpose(1, 2))
        return out.baddbmm_(_moved(x, plan), moved.transpose(1, 2)).view(*x.shape[:3], -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        *tensors, ctx.stepsize = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weights, wh, bh, ww, bw, wc = ctx.saved_tensors
        plan = _plan(x.shape[-1], ctx.stepsize)
        g = grad.flatten(1, 2)
        unmoved, moved = _matrices(weights, wh, ww, wc, plan)
        grad_x = _move_back((g @ unmoved).view(x.shape), g @ moved, plan)
        products = g.transpose(1, 2) @ x.flatten(1, 2)
        along_width, along_height = (g.transpose(1, 2) @ _moved(x, plan)).chunk(2, -1)
        sums, still = g.sum(1), products[..., plan.still]
        grad_a_h, grad_wh = _branch_gradients(weights[:, 0], wh, still, along_width, plan)
        grad_a_w, grad_ww = _branch_gradients(weights[:, 1], ww, still, along_height, plan)
        grad_weights = torch.stack([grad_a_h + bh * sums, grad_a_w + bw * sums, (wc * products).sum(-1)], 1)
        grad_bh, grad_bw = (weights[:, 0] * sums).sum(0), (weights[:, 1] * sums).sum(0)
        grad_wc = torch.einsum("bo,boi->oi", weights[:, 2], products)
        return grad_x, grad_weights, grad_wh, grad_bh, grad_ww, grad_bw, grad_wc, None


def _branch_gradients(a: Tensor, weight: Tensor, still: Tensor, moving: Tensor, plan: _Plan) -> tuple[Tensor, Tensor]:
    """Gradients of the branch weights (batch, out), but for the bias's part, and of the weight (out, in)."""
    grad_a = (weight[:, plan.still] * still).sum(-1) + (weight[:, plan.moving] * moving).sum(-1)
    grad_weight = torch.empty_like(weight)
    grad_weight[:, plan.still] = torch.einsum("bo,boi->oi", a, still)
    grad_weight[:, plan.moving] = torch.einsum("bo,boi->oi", a, moving)
    return grad_a, grad_weight


class _ShiftedMeans(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, stepsize: int) -> Tensor:
        # A mean of what is read is the plain mean less what the shift leaves behind at the border.
        precise = torch.promote_types(x.dtype, torch.float32)
        sums = x.sum((1, 2), dtype=precise)[:, None].repeat(1, 3, 1)
        for group in _plan(x.shape[-1], stepsize).groups:
            sums[:, 2 - group.dim, group.of_x] -= _left_behind(x[..., group.of_x], group).sum((1, 2), dtype=precise)
        return (sums / (x.shape[1] * x.shape[2])).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.shape, ctx.stepsize = inputs[0].shape, inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad / (ctx.shape[1] * ctx.shape[2])
        out = grad.sum(1)[:, None, None].expand(ctx.shape).contiguous()
        for group in _plan(ctx.shape[-1], ctx.stepsize).groups:
            _left_behind(out[..., group.of_x], group).sub_(grad[:, 2 - group.dim, None, None, group.of_x])
        return out, None


def _left_behind(x: Tensor, group: _Group) -> Tensor:
    length = x.shape[group.dim]
    kept, _, _, _, first = group.narrowed(length)
    return x.narrow(group.dim, first, length - kept)


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
