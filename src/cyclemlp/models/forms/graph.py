r"""The fused token mixers as graphs for a runtime: few nodes, no choice at run time, one concatenation.

Where `fused_mixer.py` copies slice by slice and adds products in place, a graph computes

    y = U M(a),    U = [u, 1, u_W, 1, u_H, 1]    (batch, height, width, channels + 2 moving + 3)

The columns of ones carry the biases, the branch weights a follow from the mean of U over positions, and each shift is
one Pad, whose negative padding cuts. Runtimes spend microseconds on every node, however small.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.models.forms.fused_mixer import BlendedMixer, ChannelOrder, ConstantMixer, Form, frozen
from cyclemlp.ops.shift import padded_groups


def graph_mixer(mixer: BlendedMixer | ConstantMixer, positions: int, batch: int) -> nn.Module:
    """The graph of a fused mixer, in the cheapest form for this batch and number of positions an image."""
    if isinstance(mixer, ConstantMixer):
        return ConstantGraph(mixer)
    form = graph_form_of(batch, positions, mixer.order)
    return BranchesGraph(mixer) if form == "branches" else BlendedGraph(mixer, folded=form == "folded")


def graph_form_of(batch: int, positions: int, order: ChannelOrder) -> Form:
    """The cheapest form if weights are constants of a graph.

    A runtime packs constants once, but the weight of an image in every call, and the many small products of a batch are
    slower than one large product: `branches` pays up to more positions than in `choose_form`. Measured in ONNX Runtime.
    """
    if positions > len(order.channels) + 2 * order.moving:
        return "folded"
    return "branches" if batch > 1 or 4 * positions < len(order.channels) else "blended"


class BlendedGraph(nn.Module):
    """`BlendedMixer` with its residual connection, by one product whose weight is computed for each image.

    With `folded` that weight includes the projection.
    """

    def __init__(self, mixer: BlendedMixer, folded: bool) -> None:
        super().__init__()
        self.order, self.folded = mixer.order, folded
        self.weights = BranchWeights(mixer)
        still = self.order.still
        width, height, channels = mixer.width_rows, mixer.height_rows, mixer.channel_rows
        none = torch.zeros_like(mixer.width_bias)
        # Rows of M(a) that a single branch scales, each branch followed by its bias; the channel FC has none.
        branches = ((channels, none), (width, mixer.width_bias), (height, mixer.height_bias))
        self.own_rows = frozen(torch.stack([torch.cat([rows[still:], bias[None]]) for rows, bias in branches]))
        # All three branches share the unmoved channels. Branch weights sum to 1, so the channel FC's need no scaling.
        self.still_rows = frozen(channels[:still])
        self.still_width = frozen(width[:still] - channels[:still])
        self.still_height = frozen(height[:still] - channels[:still])
        self.proj_rows = mixer.proj_rows
        self.proj_bias = mixer.proj_bias
        if folded:  # the projection's bias goes into the row of the channel FC's
            addend = torch.zeros(still + 3 * (self.order.moving + 1), len(none), dtype=none.dtype, device=none.device)
            addend[len(self.order.channels)] = mixer.proj_bias
            self.folded_addend = frozen(addend)

    def forward(self, x_nhwc: Tensor, u_nhwc: Tensor, in_place: bool) -> Tensor:  # noqa: ARG002
        """`x + mixer(u)` as in `BlendedMixer`; nothing is done in place."""
        stacked, mean_nc = _stacked(u_nhwc, *moved_parts(u_nhwc, self.order))
        matrix = self._blend(self.weights(mean_nc))
        if self.folded:
            mixed = stacked @ (matrix @ self.proj_rows + self.folded_addend)
        else:
            mixed = stacked @ matrix @ self.proj_rows + self.proj_bias
        return x_nhwc + mixed.view(u_nhwc.shape)

    def _blend(self, weights: Tensor) -> Tensor:
        """M(a): (batch, 3, channels) -> (batch, inputs, channels)."""
        along_width, along_height = weights[:, 1:2], weights[:, 2:3]
        still = self.still_rows + self.still_width * along_width + self.still_height * along_height
        own = (self.own_rows * weights[:, :, None]).flatten(1, 2)
        return torch.cat([still, own], 1)


class BranchWeights(nn.Module):
    """The reweighting MLP, from the mean of U."""

    def __init__(self, mixer: BlendedMixer) -> None:
        super().__init__()
        hidden_bias, size = mixer.hidden_bias, len(mixer.proj_bias)
        still, moving = mixer.order.still, mixer.order.moving
        # In double precision: the mixer has the rows of the shifted channels by what they lose against the plain mean.
        lost = mixer.lost_rows.double()
        mean = mixer.mean_rows.double().clone()
        mean[still:] += lost[:moving] + lost[moving:]
        none = torch.zeros_like(hidden_bias)[None].double()
        parts = [mean, hidden_bias.double()[None], -lost[:moving], none, -lost[moving:], none]
        self.hidden_rows = frozen(torch.cat(parts).to(hidden_bias.dtype))
        by_branch = mixer.logit_rows.view(-1, 3, size)[:, [2, 0, 1]]  # channels, width, height
        self.logit_rows = frozen(by_branch.flatten(1))
        self.logit_bias = frozen(mixer.logit_bias.view(3, size)[[2, 0, 1]].flatten())

    def forward(self, mean_nc: Tensor) -> Tensor:
        """(batch, inputs) -> (batch, 3, channels): channels, width, height; they sum to 1 over the branches."""
        hidden = F.gelu(mean_nc @ self.hidden_rows)
        logits = hidden @ self.logit_rows + self.logit_bias
        return logits.view(-1, 3, logits.shape[-1] // 3).softmax(1)


class BranchesGraph(nn.Module):
    """`BlendedMixer` with its residual connection, by one product for each branch, for maps of few positions."""

    def __init__(self, mixer: BlendedMixer) -> None:
        super().__init__()
        self.order = mixer.order
        self.weights = BranchWeights(mixer)
        self.width_rows, self.height_rows = mixer.width_rows, mixer.height_rows
        self.channel_rows = mixer.channel_rows
        self.width_bias, self.height_bias = mixer.width_bias, mixer.height_bias
        self.proj_rows, self.proj_bias = mixer.proj_rows, mixer.proj_bias

    def forward(self, x_nhwc: Tensor, u_nhwc: Tensor, in_place: bool) -> Tensor:  # noqa: ARG002
        """`x + mixer(u)` as in `BlendedMixer`; nothing is done in place."""
        still = u_nhwc[..., : self.order.still]
        moved_width, moved_height = moved_parts(u_nhwc, self.order)
        _, mean_nc = _stacked(u_nhwc, moved_width, moved_height)
        weights = self.weights(mean_nc)[:, :, None, None]
        along_width = torch.cat([still, *moved_width], -1) @ self.width_rows + self.width_bias
        along_height = torch.cat([still, *moved_height], -1) @ self.height_rows + self.height_bias
        mixed = along_width * weights[:, 1] + along_height * weights[:, 2]
        mixed = mixed + (u_nhwc @ self.channel_rows) * weights[:, 0]
        return x_nhwc + (mixed @ self.proj_rows + self.proj_bias)


class ConstantGraph(nn.Module):
    """`ConstantMixer` with its residual connection."""

    def __init__(self, mixer: ConstantMixer) -> None:
        super().__init__()
        self.order, self.matrix, self.bias = mixer.order, mixer.matrix, mixer.bias

    def forward(self, x_nhwc: Tensor, u_nhwc: Tensor, in_place: bool) -> Tensor:  # noqa: ARG002
        """`x + mixer(u)`; nothing is done in place."""
        along_width, along_height = moved_parts(u_nhwc, self.order)
        return x_nhwc + (torch.cat([u_nhwc, *along_width, *along_height], -1) @ self.matrix + self.bias)


def moved_parts(u_nhwc: Tensor, order: ChannelOrder) -> tuple[list[Tensor], list[Tensor]]:
    """The moving channels by group, read along the width and along the height."""
    parts = padded_groups(u_nhwc, order.moved)
    return parts[: len(parts) // 2], parts[len(parts) // 2 :]


def _stacked(u_nhwc: Tensor, moved_width: list[Tensor], moved_height: list[Tensor]) -> tuple[Tensor, Tensor]:
    """U (batch, positions, inputs), and its mean over the positions (batch, inputs)."""
    batch, height, width, _ = u_nhwc.shape
    ones = u_nhwc.new_ones((batch, height, width, 1))
    stacked = torch.cat([u_nhwc, ones, *moved_width, ones, *moved_height, ones], -1).flatten(1, 2)
    # As a product with ones, because averages are slower in runtimes.
    return stacked, (ones.view(batch, 1, height * width) @ stacked).squeeze(1) / (height * width)
