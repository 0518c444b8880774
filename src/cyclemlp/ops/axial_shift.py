r"""The axial shift: S groups of channels, each read one position further along one axis than the next.

CycleFC gives each channel in turn another offset; here neighbouring channels move together. For shift size 5, along the
width, with C = 10 channels in groups of ceil(C / 5):

    channel       0   1 | 2   3 | 4   5 | 6   7 | 8   9
    offset dj    +2  +2  +1  +1   0   0  -1  -1  -2  -2

    out[b, i, j, c] = x[b, i, j + dj(c), c],    dj(c) = S//2 - c // ceil(C / S),    x is zero outside the image

A 1x1 layer after it sees S positions. Source: Lian, Yu, Sun, Gao, "AS-MLP: An Axial Shifted MLP Architecture for
Vision", ICLR 2022, arXiv 2107.08391, section 3.2; the signs are those of github.com/svip-lab/AS-MLP (shift_cuda.py), a
CUDA kernel there. Here, as in CycleFC, `shift.py` moves the channels.
"""

from typing import Any, Literal

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.ops.shift import Plan, adjoint, in_place_of_itself, is_recorded, shift

Axis = Literal["height", "width"]


def axial_shift(x_nhwc: Tensor, shift_size: int = 5, axis: Axis = "width", dilation: int = 1) -> Tensor:
    """Move groups of channels along one axis; zeros enter at the border.

    Args:
        x_nhwc: (batch, height, width, channels), any strides, any size including an empty batch.
        shift_size: S, the number of groups; odd.
        axis: 'height' or 'width'.
        dilation: difference between the offsets of neighbouring groups, in positions.

    Returns:
        The same shape.

    Raises:
        ValueError: an even or non-positive shift size or dilation, or another axis.
    """
    check_shift(shift_size, axis, dilation)
    plan = axial_plan(x_nhwc.shape[-1], shift_size, axis, dilation)
    graph = torch.compiler.is_compiling() or is_recorded()
    if graph or not (torch.is_grad_enabled() and x_nhwc.requires_grad):
        return shift(x_nhwc, plan)
    return _Shift.apply(x_nhwc, plan)


torch.fx.wrap("axial_shift")  # one node of a symbolic trace, because it looks at shapes


def axial_shift_reference(x_nhwc: Tensor, shift_size: int = 5, axis: Axis = "width", dilation: int = 1) -> Tensor:
    """The formula above, position by position and channel by channel: slow, for checking."""
    _, height, width, channels = x_nhwc.shape
    out = torch.zeros_like(x_nhwc)
    for c in range(channels):
        offset = dilation * (shift_size // 2 - c // -(-channels // shift_size))
        for i in range(height):
            for j in range(width):
                row, column = (i + offset, j) if axis == "height" else (i, j + offset)
                if 0 <= row < height and 0 <= column < width:
                    out[:, i, j, c] = x_nhwc[:, row, column, c]
    return out


def axial_plan(channels: int, shift_size: int, axis: Axis, dilation: int = 1) -> Plan:
    """The groups and the offset of each."""
    # Numerators are positive: in a graph that the old ONNX exporter traced, division rounds towards zero.
    size = (channels + shift_size - 1) // shift_size
    plan = []
    for group in range((channels + size - 1) // size if size else 0):
        offset = dilation * (shift_size // 2 - group)
        down, right = (offset, 0) if axis == "height" else (0, offset)
        plan.append(in_place_of_itself(slice(group * size, min(channels, (group + 1) * size)), down, right))
    return tuple(plan)


def check_shift(shift_size: int, axis: str, dilation: int) -> None:
    """Raise ValueError unless the shift size is odd and positive, the dilation positive and the axis one of the two."""
    if shift_size < 1 or shift_size % 2 == 0:
        raise ValueError(f"shift_size is {shift_size}; it must be odd and positive, such as 5")
    if dilation < 1:
        raise ValueError(f"dilation is {dilation}; it must be 1 or more")
    if axis not in ("height", "width"):
        raise ValueError(f"axis is {axis!r}; allowed are 'height' and 'width'")


class _Shift(torch.autograd.Function):
    """The gradient moves back by the same amount; without this, autograd would record every slice."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, plan: Plan) -> Tensor:
        return shift(x, plan)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.plan = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Shift.apply(grad, adjoint(ctx.plan)), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return shift(tangent, ctx.plan)


class AxialFC(nn.Linear):
    """`torch.nn.Linear` over channels that have moved along one axis: see `axial_shift`.

    Args and errors are those of `axial_shift` and `torch.nn.Linear`; the weight is (out_channels, in_channels).
    Shape: (batch, height, width, in_channels) -> (batch, height, width, out_channels).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        shift_size: int = 5,
        axis: Axis = "width",
        dilation: int = 1,
    ) -> None:
        check_shift(shift_size, axis, dilation)
        super().__init__(in_channels, out_channels, bias)
        self.shift_size, self.axis, self.dilation = shift_size, axis, dilation

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, in) -> (batch, height, width, out)."""
        return F.linear(axial_shift(x_nhwc, self.shift_size, self.axis, self.dilation), self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, shift_size={self.shift_size}, axis={self.axis!r}, dilation={self.dilation}"
