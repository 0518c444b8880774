r"""The exact inference form of the token mixers: one matrix product whose weight depends on the image.

With x normalised, x_W and x_H the channels that the staircases move along width and height, and a the branch weights:

    y = proj(a_h * along_width(x) + a_w * along_height(x) + a_c * along_channels(x))
      = [x, x_W, x_H] M(a) + m(a)

The columns of M(a) are those of the three weights scaled by a; a staircase's unmoved channels (a third for step size 3)
share the rows of x. Averages commute with linear maps, so a follows from the mean of x and from what each shift loses
at the border: mean(x_W) = mean(x) - (sum over the columns lost) / positions. The three branches never exist in memory.

Nothing is approximated. Channels are grouped by offset (`ChannelOrder`), so that every shift is one slice.
"""

from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.errors import ConfigError
from cyclemlp.models.cyclemlp import CycleMixer
from cyclemlp.models.cyclemlp_swin import SummedCycleMixer
from cyclemlp.ops.cycle_fc import cycle_plan
from cyclemlp.ops.shift import Plan, only_moved, padded_groups, read_moved, unread

Form = Literal["branches", "blended", "folded"]

# With fewer positions an image than this it is cheaper to scale three results than to make a weight for each image. A
# single image is an ordinary product, where that pays sooner. Measured: 49 positions of 512 channels, batch 1 and 8.
BLEND_POSITIONS = 64
BLEND_POSITIONS_ALONE = 32


@dataclass(frozen=True)
class ChannelOrder:
    """Channels grouped by how far the staircases move them, the unmoved first."""

    channels: tuple[int, ...]
    """The model's channel at each place."""
    still: int
    """The number of channels that do not move."""
    moved: Plan
    """Those that do, read along the width, then along the height."""

    @classmethod
    def of(cls, width: int, stepsize: int, dilation: int = 1) -> "ChannelOrder":
        """The order for `width` channels under step size (1, S) and (S, 1): both move the same channels equally far."""
        plans = [cycle_plan(width, step, dilation) for step in ((1, stepsize), (stepsize, 1))]
        groups = [list(range(width)[move.source]) for move in sorted(plans[0], key=lambda move: move.moves)]
        stops = list(accumulate(len(group) for group in groups))
        # Both plans have the same groups in the same order, of which one does not move.
        places = [slice(stop - len(group), stop) for stop, group in zip(stops, groups, strict=True)][1:]
        moves = [[move for move in plan if move.moves] for plan in plans]
        moved = [move._replace(source=place) for plan in moves for move, place in zip(plan, places, strict=True)]
        return cls(tuple(chain.from_iterable(groups)), stops[0], only_moved(tuple(moved), width))

    @classmethod
    def of_mixer(cls, mixer: nn.Module) -> "ChannelOrder":
        """The order for the staircases of a token mixer."""
        assert isinstance(mixer, CycleMixer | SummedCycleMixer)
        layer = mixer.along_width
        return cls.of(layer.in_features, layer.stepsize[1], layer.dilation)

    @property
    def moving(self) -> int:
        """The number of channels that move along each axis."""
        return len(self.channels) - self.still

    @property
    def places(self) -> tuple[int, ...]:
        """The place of each of the model's channels."""
        return tuple(sorted(range(len(self.channels)), key=self.channels.__getitem__))


def choose_form(batch: int, positions: int, inputs: int) -> Form:
    """The cheapest of the three ways to compute the same values, by multiply-adds per image.

    `blended` makes M(a) of `inputs` rows and leaves the projection to a second product; `folded` multiplies the
    projection into M(a): inputs * channels^2 more once, positions * channels^2 less. `branches` makes no such weight.
    """
    if positions > inputs:
        return "folded"
    few = BLEND_POSITIONS_ALONE if batch == 1 else BLEND_POSITIONS
    return "branches" if positions < few else "blended"


class StaircaseProduct(nn.Module):
    """What the fused mixers share: the moved channels, and products added to the residual stream."""

    def __init__(self, order: ChannelOrder) -> None:
        super().__init__()
        self.order = order

    def moved(self, u_nhwc: Tensor, in_place: bool) -> Tensor:
        """The moving channels read along the width, then along the height: (batch, height, width, 2 * moving).

        With `in_place` they are copied slice by slice into one tensor, else by expressions that a graph can hold.
        """
        if in_place or not self.order.moved:
            return read_moved(u_nhwc, self.order.moved)
        return torch.cat(padded_groups(u_nhwc, self.order.moved), -1)

    def lost(self, u_nhwc: Tensor, moved: Tensor, in_place: bool) -> Tensor:
        """Sums, in float32 at least, over the positions that each shift leaves unread: (batch, 2 * moving)."""
        precise = torch.promote_types(u_nhwc.dtype, torch.float32)
        if in_place and self.order.moved:
            strips = (unread(u_nhwc[..., move.source], move) for move in self.order.moved)
            return torch.cat([strip.sum((1, 2), dtype=precise) for strip in strips], -1)
        whole = u_nhwc[..., self.order.still :].sum((1, 2), dtype=precise)
        return whole.repeat(1, 2) - moved.sum((1, 2), dtype=precise)


class BlendedMixer(StaircaseProduct):
    """`CycleMixer` with its residual connection: x + mixer(u), channels of x and u in `order`.

    Args:
        mixer: the plain form.
        order: of the channels in the residual stream.
        positions: the number an image has in an exported graph, which must choose its form once.
    """

    def __init__(self, mixer: CycleMixer, order: ChannelOrder, positions: int) -> None:
        super().__init__(order)
        self.positions = positions
        dtype, still = mixer.proj.weight.dtype, order.still
        width, height, channels = (
            _rows(layer.weight, order) for layer in (mixer.along_width, mixer.along_height, mixer.along_channels)
        )
        self.width_bias = frozen(mixer.along_width.bias, dtype)
        self.height_bias = frozen(mixer.along_height.bias, dtype)
        self.width_rows, self.height_rows = frozen(width, dtype), frozen(height, dtype)
        self.channel_rows = frozen(channels, dtype)
        self.proj_rows = frozen(mixer.proj.weight.double().t()[:, list(order.channels)], dtype)
        self.proj_bias = frozen(mixer.proj.bias[list(order.channels)], dtype)
        # The first layer of the reweighting MLP takes the means of the inputs instead of those of the branches.
        first, second = mixer.reweight.fc1, mixer.reweight.fc2
        hidden = first.weight.double().t()
        bias = (self.width_bias + self.height_bias).double() @ hidden + first.bias
        self.mean_rows = frozen((width + height + channels) @ hidden, dtype)
        self.lost_rows = frozen(-torch.cat([width[still:], height[still:]]) @ hidden, dtype)
        self.hidden_bias = frozen(bias, dtype)
        # (channels, branches) interleaved -> branches one after the other.
        size = width.shape[0]
        self.logit_rows = frozen(second.weight.view(size, 3, -1).transpose(0, 1).reshape(3 * size, -1).t(), dtype)
        self.logit_bias = frozen(second.bias.view(size, 3).t().flatten(), dtype)

    def forward(self, x_nhwc: Tensor, u_nhwc: Tensor, in_place: bool) -> Tensor:
        """`x + mixer(u)`; with `in_place` x itself is changed."""
        batch, height, width, channels = u_nhwc.shape
        moved = self.moved(u_nhwc, in_place)
        weights = self.branch_weights(u_nhwc, self.lost(u_nhwc, moved, in_place))
        inputs = channels + 2 * self.order.moving
        if torch.compiler.is_exporting():  # a graph for every size has one form
            form = choose_form(1, self.positions, inputs)
        else:
            form = choose_form(batch, height * width, inputs)
        if form == "branches":
            mixed = self._branches(u_nhwc, moved, weights)
            return add_product(_add(x_nhwc, self.proj_bias, in_place), mixed, self.proj_rows, in_place)
        matrix, bias = self._blend_in_place(weights) if in_place else self._blend(weights)
        if form == "folded":
            matrix = matrix @ self.proj_rows
            bias = (bias @ self.proj_rows + self.proj_bias)[:, None, None]
            return _two_products(_add(x_nhwc, bias, in_place), u_nhwc, moved, matrix, in_place)
        bias = bias[:, None, None].expand(x_nhwc.shape)
        mixed = _two_products(bias.contiguous() if in_place else bias, u_nhwc, moved, matrix, in_place)
        return add_product(_add(x_nhwc, self.proj_bias, in_place), mixed, self.proj_rows, in_place)

    def branch_weights(self, u_nhwc: Tensor, lost: Tensor) -> Tensor:
        """(batch, 3, channels): width, height, channels; they sum to 1 over the branches."""
        # Statistics in float32 at least, as in the plain form.
        precise = torch.promote_types(u_nhwc.dtype, torch.float32)
        mean_nc = u_nhwc.mean((1, 2), dtype=precise).to(u_nhwc.dtype)
        positions = u_nhwc.shape[1] * u_nhwc.shape[2]
        lost_nc = (lost / positions).to(u_nhwc.dtype)
        hidden = F.gelu(mean_nc @ self.mean_rows + lost_nc @ self.lost_rows + self.hidden_bias)
        logits = hidden @ self.logit_rows + self.logit_bias
        by_branch = logits.view(logits.shape[0], 3, u_nhwc.shape[-1])
        return by_branch.softmax(1, dtype=precise).to(logits.dtype)

    def _blend(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """M(a) (batch, inputs, channels) and m(a) (batch, channels), without the projection."""
        still = self.order.still
        along_width, along_height, along_channels = weights[:, 0:1], weights[:, 1:2], weights[:, 2:3]
        matrix = torch.cat(
            [
                self.channel_rows[:still] * along_channels
                + self.width_rows[:still] * along_width
                + self.height_rows[:still] * along_height,
                self.channel_rows[still:] * along_channels,
                self.width_rows[still:] * along_width,
                self.height_rows[still:] * along_height,
            ],
            1,
        )
        return matrix, weights[:, 0] * self.width_bias + weights[:, 1] * self.height_bias

    def _blend_in_place(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """As `_blend`, each part written where it belongs: no sums of temporaries, no concatenation."""
        still, channels, moving = self.order.still, len(self.order.channels), self.order.moving
        along_width, along_height, along_channels = weights[:, 0:1], weights[:, 1:2], weights[:, 2:3]
        matrix = weights.new_empty((len(weights), channels + 2 * moving, channels))
        own, moved_width, moved_height = torch.split(matrix, [channels, moving, moving], 1)
        torch.mul(self.channel_rows, along_channels, out=own)
        shared = own[:, :still]
        shared.addcmul_(self.width_rows[:still], along_width).addcmul_(self.height_rows[:still], along_height)
        torch.mul(self.width_rows[still:], along_width, out=moved_width)
        torch.mul(self.height_rows[still:], along_height, out=moved_height)
        return matrix, weights[:, 0] * self.width_bias + weights[:, 1] * self.height_bias

    def _branches(self, u_nhwc: Tensor, moved: Tensor, weights: Tensor) -> Tensor:
        still, moving = self.order.still, self.order.moving
        unmoved = u_nhwc[..., :still]
        along_width = torch.cat([unmoved, moved[..., :moving]], -1) @ self.width_rows + self.width_bias
        along_height = torch.cat([unmoved, moved[..., moving:]], -1) @ self.height_rows + self.height_bias
        by_branch = weights[:, :, None, None]
        return (
            along_width * by_branch[:, 0]
            + along_height * by_branch[:, 1]
            + (u_nhwc @ self.channel_rows) * by_branch[:, 2]
        )


class ConstantMixer(StaircaseProduct):
    """A mixer whose branches are summed without reweighting: M is constant, and the projection is inside it."""

    def __init__(self, mixer: SummedCycleMixer, order: ChannelOrder) -> None:
        super().__init__(order)
        dtype, still = mixer.proj.weight.dtype, order.still
        layers = (mixer.along_width, mixer.along_height, mixer.along_channels)
        width, height, channels = (_rows(layer.weight, order) for layer in layers)
        channels[:still] += width[:still] + height[:still]
        projection = mixer.proj.weight.double().t()[:, list(order.channels)]
        bias = sum((layer.bias.double() for layer in layers if layer.bias is not None), projection.new_zeros(()))
        self.matrix = frozen(torch.cat([channels, width[still:], height[still:]]) @ projection, dtype)
        self.bias = frozen(bias.expand(len(projection)) @ projection + mixer.proj.bias[list(order.channels)], dtype)

    def forward(self, x_nhwc: Tensor, u_nhwc: Tensor, in_place: bool) -> Tensor:
        """`x + mixer(u)`; with `in_place` x itself is changed."""
        moved = self.moved(u_nhwc, in_place)
        return _two_products(_add(x_nhwc, self.bias, in_place), u_nhwc, moved, self.matrix, in_place)


def fuse_mixer(mixer: nn.Module, order: ChannelOrder, positions: int) -> BlendedMixer | ConstantMixer:
    """The fused form of a token mixer with two staircases, a channel FC and a projection.

    Raises:
        ConfigError: its staircases do not move the channels as `order` says.
    """
    assert isinstance(mixer, CycleMixer | SummedCycleMixer)
    for name, layer, axis in (("along_width", mixer.along_width, 1), ("along_height", mixer.along_height, 0)):
        own = ChannelOrder.of(layer.in_features, layer.stepsize[axis], layer.dilation)
        if layer.stepsize[1 - axis] != 1 or own != order:
            raise ConfigError(f"{name} has step size {layer.stepsize}; only one step size a stage can be fused")
    if isinstance(mixer, SummedCycleMixer):
        return ConstantMixer(mixer, order)
    return BlendedMixer(mixer, order, positions)


def add_product(total_nhwc: Tensor, x_nhwc: Tensor, matrix: Tensor, in_place: bool) -> Tensor:
    """`total + x matrix`; the matrix is one for all, (in, out), or one an image, (batch, in, out)."""
    if not in_place:
        return total_nhwc + (
            x_nhwc @ matrix if matrix.ndim == 2 else (x_nhwc.flatten(1, 2) @ matrix).view_as(total_nhwc)
        )
    if matrix.ndim == 2 or matrix.shape[0] == 1:
        rows = x_nhwc.flatten(0, 2)
        total_nhwc.view(rows.shape[0], total_nhwc.shape[-1]).addmm_(rows, matrix.view(matrix.shape[-2:]))
    else:
        total_nhwc.view(x_nhwc.flatten(1, 2).shape[:2] + total_nhwc.shape[-1:]).baddbmm_(x_nhwc.flatten(1, 2), matrix)
    return total_nhwc


def _two_products(total: Tensor, u_nhwc: Tensor, moved: Tensor, matrix: Tensor, in_place: bool) -> Tensor:
    """`total + [u, moved] matrix`; in place without that concatenation, in a graph with it, for one product."""
    if not in_place:
        return add_product(total, torch.cat([u_nhwc, moved], -1), matrix, in_place)
    channels = u_nhwc.shape[-1]
    total = add_product(total, u_nhwc, matrix[..., :channels, :], in_place)
    return add_product(total, moved, matrix[..., channels:, :], in_place)


def _add(x: Tensor, addend: Tensor, in_place: bool) -> Tensor:
    return x.add_(addend) if in_place else x + addend


def _rows(weight_oc: Tensor, order: ChannelOrder) -> Tensor:
    """(out, in) -> (in, out) with the inputs in order, in double precision for the foldings that follow."""
    return weight_oc.detach().double().t()[list(order.channels)]


def frozen(
    value: Tensor,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> nn.Parameter:
    """A copy of `value` as a parameter that is not trained."""
    return nn.Parameter(value.detach().to(dtype).clone(memory_format=memory_format), requires_grad=False)
