r"""The exact inference form of the token mixers: one matrix product whose weight depends on the image.

With x normalised, x_W and x_H the channels that the staircases move along width and height, and a the branch weights:

    y = proj(a_h * along_width(x) + a_w * along_height(x) + a_c * along_channels(x))
      = U M(a),    U = [x, 1, x_W, 1, x_H, 1]    (batch, height, width, channels + 2 moving + 3)

The rows of M(a) are those of the three weights scaled by a, and the columns of ones carry the biases. A staircase's
unmoved channels (a third for step size 3) share the rows of x. Averages commute with linear maps, so a follows from the
mean of U, and the three branches never exist in memory. Nothing is approximated.

Channels are grouped by offset (`ChannelOrder`), so that every shift is one slice. There are two ways to compute U M(a):
in place, where shifts are copied slice by slice and products are added to the residual stream, and as a graph of few
nodes, for autograd, compilers and runtimes: one Pad for each shift, one concatenation, one product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.errors import ConfigError
from cyclemlp.models.cyclemlp import CycleMixer
from cyclemlp.models.cyclemlp_swin import SummedCycleMixer
from cyclemlp.ops.cycle_fc import cycle_plan
from cyclemlp.ops.precision import at_least_float32
from cyclemlp.ops.shift import Plan, is_recorded, only_moved, padded_groups, read_moved, unread

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
    """Those that do, read along the width, then along the height, into the last columns of U: [1, x_W, 1, x_H, 1]."""

    @classmethod
    def of(cls, width: int, stepsize: int, dilation: int = 1) -> "ChannelOrder":
        """The order for `width` channels under step size (1, S) and (S, 1): both move the same channels equally far."""
        plans = [only_moved(cycle_plan(width, step, dilation), width) for step in ((1, stepsize), (stepsize, 1))]
        moving = [channel for move in plans[0] for channel in range(width)[move.source]]
        still = [channel for channel in range(width) if channel not in moving]
        moved = [
            move._replace(source=_shifted(move.target, len(still)), target=_shifted(move.target, first))
            for plan, first in zip(plans, (1, len(moving) + 2), strict=True)
            for move in plan
        ]
        return cls((*still, *moving), len(still), tuple(moved))

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
    def inputs(self) -> int:
        """The number of columns of U."""
        return len(self.channels) + 2 * self.moving + 3

    @property
    def places(self) -> tuple[int, ...]:
        """The place of each of the model's channels."""
        return tuple(sorted(range(len(self.channels)), key=self.channels.__getitem__))


def choose_form(batch: int, positions: int, order: ChannelOrder, *, graph: bool = False) -> Form:
    """The cheapest of the three ways to compute the same values, by multiply-adds per image.

    `blended` makes M(a) and leaves the projection to a second product; `folded` multiplies the projection into M(a):
    inputs * channels^2 more once, positions * channels^2 less. `branches` makes no such weight. In a `graph` it pays up
    to more positions: a runtime packs constants once, but the weight of an image in every call, and the many small
    products of a batch are slower than one large product. Measured in ONNX Runtime.
    """
    if positions > len(order.channels) + 2 * order.moving:
        return "folded"
    if graph:
        return "branches" if batch > 1 or 4 * positions < len(order.channels) else "blended"
    return "branches" if positions < (BLEND_POSITIONS_ALONE if batch == 1 else BLEND_POSITIONS) else "blended"


class Inputs(NamedTuple):
    """The columns of U."""

    factors: list[Tensor]
    """U in one tensor for a graph; in place, x and the other columns, so that x is not copied."""
    along_width: list[Tensor]
    """The columns [x_W, 1]."""
    along_height: list[Tensor]
    """The columns [x_H, 1]."""


class FusedMixer(nn.Module):
    """A token mixer with its residual connection, `x + mixer(u)`, channels of x and u in `order`.

    Args:
        mixer: the plain form.
        order: of the channels in the residual stream.

    Raises:
        ConfigError: the staircases of `mixer` do not move the channels as `order` says.
    """

    def __init__(self, mixer: CycleMixer | SummedCycleMixer, order: ChannelOrder) -> None:
        super().__init__()
        self.order = order
        for name, layer, axis in (("along_width", mixer.along_width, 1), ("along_height", mixer.along_height, 0)):
            own = ChannelOrder.of(layer.in_features, layer.stepsize[axis], layer.dilation)
            if layer.stepsize[1 - axis] != 1 or own != order:
                raise ConfigError(f"{name} has step size {layer.stepsize}; only one step size a stage can be fused")

    def inputs(self, u_nhwc: Tensor, in_place: bool) -> Inputs:
        """U, in the form for work in place or for a graph."""
        moving = self.order.moving
        if in_place:
            moved = read_moved(u_nhwc, self.order.moved, 2 * moving + 3)
            moved[..., :: moving + 1] = 1
            return Inputs([u_nhwc, moved], [moved[..., 1 : moving + 2]], [moved[..., moving + 2 :]])
        ones = u_nhwc.new_ones((*u_nhwc.shape[:3], 1))
        groups = padded_groups(u_nhwc, self.order.moved)
        along_width, along_height = [*groups[: len(groups) // 2], ones], [*groups[len(groups) // 2 :], ones]
        return Inputs([torch.cat([u_nhwc, ones, *along_width, *along_height], -1)], along_width, along_height)

    def means(self, factors: Sequence[Tensor]) -> Tensor:
        """Means of U over the positions: (batch, inputs)."""
        u_nhwc = factors[0]
        batch, height, width, channels = u_nhwc.shape
        if is_recorded():
            # As a product, because averages are slower in runtimes; by the share of each position, because a sum over
            # many overflows in half precision, and because converters do not follow a size that becomes a number.
            rows, columns = u_nhwc.new_ones((1, height, 1)), u_nhwc.new_ones((1, 1, width))
            shares = rows / rows.sum(1, keepdim=True) @ (columns / columns.sum(2, keepdim=True))
            return (shares.flatten(1)[:, None] @ u_nhwc.flatten(1, 2)).squeeze(1)
        precise = at_least_float32(u_nhwc)
        if len(factors) == 1:
            return u_nhwc.mean((1, 2), dtype=precise).to(u_nhwc.dtype)
        # What a shift reads is the whole map without the strip that it leaves unread at the border.
        sums = u_nhwc.new_full((batch, self.order.inputs), height * width, dtype=precise)
        torch.sum(u_nhwc, (1, 2), dtype=precise, out=sums[:, :channels])
        for move in self.order.moved:
            strip = unread(u_nhwc[..., move.source], move).sum((1, 2), dtype=precise)
            torch.sub(sums[:, move.source], strip, out=sums[:, channels:][:, move.target])
        return sums.div_(height * width).to(u_nhwc.dtype)


class BlendedMixer(FusedMixer):
    """The fused `CycleMixer`: the weight of its product is computed for each image."""

    def __init__(self, mixer: CycleMixer, order: ChannelOrder) -> None:
        super().__init__(mixer, order)
        self.graph_form: Form = "folded"  # of a recorded graph, which has one form for all sizes
        dtype, size = mixer.proj.weight.dtype, len(order.channels)
        # The weights are folded in double precision. Branches are in the order channels, width, height.
        rows = _branch_rows(mixer, order)
        self.rows = frozen(rows, dtype)
        self.proj_rows = frozen(mixer.proj.weight.t()[:, list(order.channels)])
        self.proj_bias = frozen(mixer.proj.bias[list(order.channels)])
        # The first layer of the reweighting MLP takes the means of U instead of those of the branches.
        first, second = mixer.reweight.fc1, mixer.reweight.fc2
        hidden = blended(rows, rows.new_ones(1, 3, size), order.still)[0] @ first.weight.double().t()
        hidden[size] += first.bias
        self.hidden_rows = frozen(hidden, dtype)
        # (channels, branches along width, height and channels) interleaved -> branches one after the other.
        by_branch = [2, 0, 1]
        self.logit_rows = frozen(
            second.weight.view(size, 3, -1)[:, by_branch].transpose(0, 1).reshape(3 * size, -1).t()
        )
        self.logit_bias = frozen(second.bias.view(size, 3)[:, by_branch].t().flatten())

    def forward(self, x_nhwc: Tensor, u_nhwc: Tensor, in_place: bool) -> Tensor:
        """`x + mixer(u)`; with `in_place` x itself is changed."""
        batch, height, width, channels = u_nhwc.shape
        form = self.graph_form if is_recorded() else choose_form(batch, height * width, self.order)
        inputs = self.inputs(u_nhwc, in_place)
        weights = self.branch_weights(self.means(inputs.factors))
        if form == "branches":
            mixed = self._branches(u_nhwc, inputs, weights)
        else:
            matrix = (blended_in_place if in_place else blended)(self.rows, weights, self.order.still)
            if form == "folded":  # the projection's bias goes into the row of the channel FC's
                bias = F.pad(self.proj_bias[None], (0, 0, channels, self.order.inputs - channels - 1))
                return add_product(x_nhwc, inputs.factors, matrix @ self.proj_rows + bias, in_place=in_place)
            mixed = add_product(None, inputs.factors, matrix, in_place=in_place)
        return add_product(x_nhwc, [mixed], self.proj_rows, self.proj_bias, in_place=in_place)

    def branch_weights(self, means: Tensor) -> Tensor:
        """Means of U (batch, inputs) -> (batch, 3, channels): channels, width, height, which sum to 1."""
        hidden = F.gelu(means @ self.hidden_rows)
        logits = (hidden @ self.logit_rows + self.logit_bias).view(-1, 3, len(self.proj_bias))
        return logits.softmax(1, dtype=at_least_float32(logits)).to(logits.dtype)

    def _branches(self, u_nhwc: Tensor, inputs: Inputs, weights: Tensor) -> Tensor:
        still = u_nhwc[..., : self.order.still]
        along_channels = u_nhwc @ self.rows[0, :-1]  # which has no bias
        along_width = torch.cat([still, *inputs.along_width], -1) @ self.rows[1]
        along_height = torch.cat([still, *inputs.along_height], -1) @ self.rows[2]
        a_c, a_w, a_h = weights[:, :, None, None].unbind(1)
        return along_width * a_w + along_height * a_h + along_channels * a_c


class ConstantMixer(FusedMixer):
    """The fused `SummedCycleMixer`: M is constant, and the projection is inside it."""

    def __init__(self, mixer: SummedCycleMixer, order: ChannelOrder) -> None:
        super().__init__(mixer, order)
        rows = _branch_rows(mixer, order)
        matrix = blended(rows, rows.new_ones(1, 3, len(order.channels)), order.still)[0]
        matrix = matrix @ mixer.proj.weight.double().t()[:, list(order.channels)]
        matrix[len(order.channels)] += mixer.proj.bias[list(order.channels)]
        self.matrix = frozen(matrix, mixer.proj.weight.dtype)

    def forward(self, x_nhwc: Tensor, u_nhwc: Tensor, in_place: bool) -> Tensor:
        """`x + mixer(u)`; with `in_place` x itself is changed."""
        return add_product(x_nhwc, self.inputs(u_nhwc, in_place).factors, self.matrix, in_place=in_place)


def blended(rows: Tensor, weights: Tensor, still: int) -> Tensor:
    """M(a) without the projection, (batch, inputs, channels), from each branch's rows, (3, channels + 1, channels)."""
    scaled = rows * weights[:, :, None]
    return torch.cat([scaled[:, :, :still].sum(1), scaled[:, :, still:].flatten(1, 2)], 1)


def blended_in_place(rows: Tensor, weights: Tensor, still: int) -> Tensor:
    """As `blended`, each part written where it belongs: no sums of temporaries, no concatenation."""
    a_c, a_w, a_h = weights[:, :, None].unbind(1)
    own = rows.shape[1] - still
    matrix = weights.new_empty((len(weights), still + 3 * own, rows.shape[2]))
    torch.mul(rows[:, still:], weights[:, :, None], out=matrix[:, still:].view(-1, 3, own, rows.shape[2]))
    torch.mul(rows[0, :still], a_c, out=matrix[:, :still])
    matrix[:, :still].addcmul_(rows[1, :still], a_w).addcmul_(rows[2, :still], a_h)
    return matrix


def add_product(
    total: Tensor | None, factors: Sequence[Tensor], matrix: Tensor, bias: Tensor | None = None, *, in_place: bool
) -> Tensor:
    """`total + U matrix + bias` where `factors` are the columns of U; `in_place` changes `total`.

    The matrix is one for all images, (in, out), or one for each, (batch, in, out).
    """
    shape = (*factors[0].shape[:3], matrix.shape[-1])
    if not in_place:
        (factor,) = factors
        product = factor @ matrix if matrix.ndim == 2 else (factor.flatten(1, 2) @ matrix).view(shape)
        product = product if bias is None else product + bias
        return product if total is None else total + product
    total = factors[0].new_zeros(shape) if total is None else total
    total = total if bias is None else total.add_(bias)
    for factor, rows in zip(factors, torch.split(matrix, [factor.shape[-1] for factor in factors], -2), strict=True):
        if rows.ndim == 2 or len(rows) == 1:
            total.view(-1, shape[-1]).addmm_(factor.flatten(0, 2), rows.flatten(0, -2))
        else:
            total.flatten(1, 2).baddbmm_(factor.flatten(1, 2), rows)
    return total


def _shifted(places: slice, by: int) -> slice:
    return slice(places.start + by, places.stop + by)


def _branch_rows(mixer: CycleMixer | SummedCycleMixer, order: ChannelOrder) -> Tensor:
    """The weights of the branches along channels, width and height as (in, out), each with its bias below."""
    layers = (mixer.along_channels, mixer.along_width, mixer.along_height)
    rows = torch.stack([layer.weight.detach().double().t()[list(order.channels)] for layer in layers])
    biases = torch.stack(
        [rows.new_zeros(len(rows[0])) if layer.bias is None else layer.bias.double() for layer in layers]
    )
    return torch.cat([rows, biases[:, None]], 1).detach()


def frozen(value: Tensor, dtype: torch.dtype | None = None) -> nn.Parameter:
    """A contiguous copy of `value` as a parameter that is not trained."""
    copy = value.detach().to(dtype).clone(memory_format=torch.contiguous_format)
    return nn.Parameter(copy, requires_grad=False)
