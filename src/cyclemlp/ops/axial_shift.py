r"""The axial shift: S groups of channels, each read one position further along one axis.

CycleFC moves every channel in turn; here neighbouring channels move together. For shift size 5, along the width, with
C = 10 channels in groups of ceil(C / 5):

    channel       0   1 | 2   3 | 4   5 | 6   7 | 8   9
    offset dj    +2  +2  +1  +1   0   0  -1  -1  -2  -2

    out[b, i, j, c] = x[b, i, j + dj(c), c],    dj(c) = S//2 - c // ceil(C / S),    x is zero outside the image

A 1x1 layer behind it sees S positions. Source: Lian, Yu, Sun, Gao, "AS-MLP: An Axial Shifted MLP Architecture for
Vision", ICLR 2022, arXiv 2107.08391, section 3.2; the signs are those of github.com/svip-lab/AS-MLP (shift_cuda.py), a
CUDA kernel there. The moving itself is that of CycleFC: `shift_groups`.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.ops.cycle_fc import Move, shift_groups

Axis = Literal["height", "width"]


def axial_shift(x_nhwc: Tensor, shift_size: int = 5, axis: Axis = "width", dilation: int = 1) -> Tensor:
    """Move groups of channels along one axis; zeros come in at the border.

    Args:
        x_nhwc: (batch, height, width, channels), any strides, any size including an empty batch.
        shift_size: S, odd: how many groups.
        axis: 'height' or 'width'.
        dilation: distance between the places of neighbouring groups, in positions.

    Returns:
        The same shape.

    Raises:
        ValueError: an even or non-positive shift size or dilation, or another axis.
    """
    check_shift(shift_size, axis, dilation)
    moves = axial_moves(x_nhwc.shape[-1], shift_size, axis, dilation)
    if torch.compiler.is_exporting():
        return _shift_by_padding(x_nhwc, moves)
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and x_nhwc.requires_grad):
        return shift_groups(x_nhwc, moves)
    out: Tensor = _Shift.apply(x_nhwc, moves)
    return out


def _shift_by_padding(x_nhwc: Tensor, moves: tuple[Move, ...]) -> Tensor:
    """The same for a graph: writing into slices becomes dozens of nodes there, a padding that cuts is one."""
    groups = []
    for channels, down, right in moves:
        padding = (0, 0, -right, right, -down, down)
        added, cut = [max(edge, 0) for edge in padding], [min(edge, 0) for edge in padding]
        group = x_nhwc[..., channels]
        # In two steps where a map may be smaller than the offset.
        groups.append(F.pad(group, padding) if max(added) <= 1 else F.pad(F.pad(group, added), cut))
    return torch.cat(groups, -1)


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


def axial_moves(channels: int, shift_size: int, axis: Axis, dilation: int = 1) -> tuple[Move, ...]:
    """What `shift_groups` needs to know: the slice of channels and the offset of each group."""
    size = -(-channels // shift_size)
    moves = []
    for group in range(-(-channels // size) if size else 0):
        offset = dilation * (shift_size // 2 - group)
        down, right = (offset, 0) if axis == "height" else (0, offset)
        moves.append(Move(slice(group * size, min(channels, (group + 1) * size)), down, right))
    return tuple(moves)


def check_shift(shift_size: int, axis: str, dilation: int) -> None:
    """Raise ValueError unless the shift size is odd and positive, the dilation positive and the axis one of the two."""
    if shift_size < 1 or shift_size % 2 == 0:
        raise ValueError(f"shift_size is {shift_size}; it must be odd and positive, such as 5")
    if dilation < 1:
        raise ValueError(f"dilation is {dilation}; it must be 1 or more")
    if axis not in ("height", "width"):
        raise ValueError(f"axis is {axis!r}; allowed are 'height' and 'width'")


class _Shift(torch.autograd.Function):
    """The gradient moves back the way it came; without this, autograd would record every slice."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, moves: tuple[Move, ...]) -> Tensor:
        return shift_groups(x, moves)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.moves = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        back = tuple(Move(channels, -down, -right) for channels, down, right in ctx.moves)
        return _Shift.apply(grad, back), None


class AxialFC(nn.Linear):
    """`torch.nn.Linear` over channels that were moved along one axis: see `axial_shift`.

    Args:
        in_channels, out_channels: widths; the weight is (out_channels, in_channels).
        bias: whether to add one.
        shift_size: how many groups of channels move, odd.
        axis: 'height' or 'width'.
        dilation: distance between the places of neighbouring groups, in positions.

    Shape: (batch, height, width, in_channels) -> (batch, height, width, out_channels).

    Raises:
        ValueError: an even or non-positive shift size or dilation, or another axis.
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
        """The layer's sizes, for `print(model)`."""
        return f"{super().extra_repr()}, shift_size={self.shift_size}, axis={self.axis!r}, dilation={self.dilation}"
