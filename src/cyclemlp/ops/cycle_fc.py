r"""CycleFC: a 1x1 layer that sees beyond 1x1 because its input channels are read along a staircase.

A channel FC (a 1x1 convolution) reads all channels of one position. CycleFC reads channel c of the position that
lies dj(c) to the side, and dj cycles through the step size. For step size (1, 3), seen along the width:

    channel       0    1    2    3    4    5   ...
    offset dj     0   +1   -1    0   +1   -1   ...

    position j+1       [1]            [4]
    position j   [0]            [3]            ...     sum over c of W[o, c] * x[j + dj(c), c]
    position j-1            [2]            [5]

It has the parameters and products of the 1x1 layer, takes any image size at linear cost, and sees 3 positions a layer:

    out[b, i, j, o] = sum_c W[o, c] * x[b, i + di(c), j + dj(c), c] + bias[o],      x is zero outside the image
    step size (1, S):  di = 0,                              dj(c) = (c + S//2) mod S - S//2    (authors' code)
    step size (S, 1):  di(c) = (c + S//2) mod S - S//2,     dj = 0
    step size (SH, SW), both > 1:  di(c) = c mod SH - SH//2,  dj(c) = (c // SH) mod SW - SW//2  (the paper's formula)

Source: Chen et al., "CycleMLP: A MLP-like Architecture for Dense Prediction", ICLR 2022, arXiv 2107.10224, section 3.2;
the order of the offsets is that of github.com/ShoufaChen/CycleMLP (cycle_mlp.py), which runs a deformable convolution.
Here it is carried out as what it means: groups of channels move (`shift.py`), then comes one matrix product.
"""

from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.ops.precision import in_autocast_type
from cyclemlp.ops.shift import Plan, adjoint, in_place_of_itself, is_recorded, shift

StepSize = tuple[int, int]


def cycle_offsets(channel: int, stepsize: StepSize) -> tuple[int, int]:
    """(di, dj) of one input channel, in positions."""
    sh, sw = stepsize
    if sh == 1 or sw == 1:  # the authors' code starts the cycle in the middle, the paper's formula at the edge
        return (channel + sh // 2) % sh - sh // 2, (channel + sw // 2) % sw - sw // 2
    return channel % sh - sh // 2, channel // sh % sw - sw // 2


def cycle_fc_reference(
    x_nhwc: Tensor, weight_oc: Tensor, bias_o: Tensor | None = None, stepsize: StepSize = (1, 3), dilation: int = 1
) -> Tensor:
    """The formula above, position by position and channel by channel: slow, for checking."""
    batch, height, width, channels = x_nhwc.shape
    out = x_nhwc.new_zeros(batch, height, width, weight_oc.shape[0])
    for i in range(height):
        for j in range(width):
            for c in range(channels):
                di, dj = (dilation * offset for offset in cycle_offsets(c, stepsize))
                if 0 <= i + di < height and 0 <= j + dj < width:
                    out[:, i, j] += x_nhwc[:, i + di, j + dj, c, None] * weight_oc[:, c]
    return out if bias_o is None else out + bias_o


def cycle_fc(
    x_nhwc: Tensor, weight_oc: Tensor, bias_o: Tensor | None = None, stepsize: StepSize = (1, 3), dilation: int = 1
) -> Tensor:
    """Fully connected layer over channels read along the staircase.

    Args:
        x_nhwc: (batch, height, width, in channels), any strides, any size including an empty batch.
        weight_oc: (out channels, in channels).
        bias_o: (out channels) or None.
        stepsize: (SH, SW), odd: the length of the cycle along height and width, in positions.
        dilation: distance between neighbouring steps, in positions.

    Returns:
        (batch, height, width, out channels); under autocast in autocast's type.

    Raises:
        ValueError: an even or non-positive step size or dilation, or shapes that do not fit.

    Source: paper section 3.2. For training only `x_nhwc` itself is kept, so branches that share an input share memory.
    """
    check_stepsize(stepsize, dilation)
    if x_nhwc.ndim != 4 or weight_oc.ndim != 2 or x_nhwc.shape[-1] != weight_oc.shape[1]:
        raise ValueError(
            f"cycle_fc got input {tuple(x_nhwc.shape)} and weight {tuple(weight_oc.shape)}; "
            "it needs (batch, height, width, in) and (out, in)"
        )
    x_nhwc, weight_oc = in_autocast_type(x_nhwc, weight_oc)
    bias_o = None if bias_o is None else bias_o.to(weight_oc.dtype)
    plan = cycle_plan(x_nhwc.shape[-1], stepsize, dilation)
    # The compiler finds out by itself that it can repeat the shift, and a traced graph holds no Python.
    if torch.compiler.is_compiling() or is_recorded() or not torch.is_grad_enabled():
        return F.linear(shift(x_nhwc, plan), weight_oc, bias_o)
    return _ShiftedLinear.apply(x_nhwc, weight_oc, bias_o, plan)


torch.fx.wrap("cycle_fc")  # one node of a symbolic trace, because it looks at shapes


def cycle_plan(channels: int, stepsize: StepSize, dilation: int = 1) -> Plan:
    """The staircase as moves: all channels of one offset make a group."""
    period = stepsize[0] * stepsize[1]
    offsets = [cycle_offsets(c, stepsize) for c in range(min(period, channels))]
    return tuple(
        in_place_of_itself(slice(c, None, period), dilation * di, dilation * dj) for c, (di, dj) in enumerate(offsets)
    )


def check_stepsize(stepsize: StepSize, dilation: int) -> None:
    """Raise ValueError unless both step sizes are odd and positive and the dilation is positive."""
    if len(stepsize) != 2 or any(step < 1 or step % 2 == 0 for step in stepsize):
        raise ValueError(f"stepsize is {stepsize}; both numbers must be odd and positive, such as (1, 3) or (3, 3)")
    if dilation < 1:
        raise ValueError(f"dilation is {dilation}; it must be 1 or more")


class _ShiftedLinear(torch.autograd.Function):
    """Keeps the unshifted input and shifts again in the backward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan) -> Tensor:
        return F.linear(shift(x, plan), weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, weight, bias, ctx.plan = inputs
        ctx.has_bias = bias is not None
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = shift(grad @ weight, adjoint(ctx.plan))
        if ctx.needs_input_grad[1]:
            grad_weight = grad.flatten(0, 2).t() @ shift(x, ctx.plan).flatten(0, 2)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 1, 2))
        return grad_x, grad_weight, grad_bias, None

    @staticmethod
    def jvp(
        ctx: Any, x_tangent: Tensor | None, weight_tangent: Tensor | None, bias_tangent: Tensor | None, _: None
    ) -> Tensor:
        x, weight = ctx.saved_tensors
        by_x = None if x_tangent is None else F.linear(shift(x_tangent, ctx.plan), weight)
        by_weight = None if weight_tangent is None else F.linear(shift(x, ctx.plan), weight_tangent)
        parts = [part for part in (by_x, by_weight, bias_tangent) if part is not None]
        return sum(parts[1:], start=parts[0]).expand(*x.shape[:3], weight.shape[0])


class CycleFC(nn.Linear):
    """`torch.nn.Linear` whose input channels are read along a staircase: see `cycle_fc`.

    Args and errors are those of `cycle_fc` and `torch.nn.Linear`; the weight is (out_channels, in_channels).
    Shape: (batch, height, width, in_channels) -> (batch, height, width, out_channels).
    """

    def __init__(
        self, in_channels: int, out_channels: int, bias: bool = True, stepsize: StepSize = (1, 3), dilation: int = 1
    ) -> None:
        check_stepsize(stepsize, dilation)
        super().__init__(in_channels, out_channels, bias)
        self.stepsize, self.dilation = stepsize, dilation

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, in) -> (batch, height, width, out)."""
        return cycle_fc(x_nhwc, self.weight, self.bias, self.stepsize, self.dilation)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, stepsize={self.stepsize}, dilation={self.dilation}"
