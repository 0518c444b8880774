r"""The fused token mixers as graphs for a runtime: few nodes, no choice at run time, one concatenation.

Where `fused_mixer.py` copies slice by slice and adds products in place, here

    y = U M(a),    U = [u, 1, u_W, 1, u_H, 1]    (batch, height, width, channels + 2 moving + 3)

holds everything: the columns of ones carry the biases, the mean of U over positions gives the branch weights a, and a
shift is one Pad, which cuts where the padding is negative. Runtimes spend microseconds on every node of any size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.models.forms.fused_mixer import BlendedMixer, ChannelOrder, ConstantMixer, Form
from cyclemlp.ops.shift import padded_groups


def graph_mixer(mixer: BlendedMixer | ConstantMixer, positions: int, batch: int) -> nn.Module:
    """The graph of a fused mixer, in the form that is cheapest for batches of images of so many positions."""
    if isinstance(mixer, ConstantMixer):
        return ConstantGraph(mixer)
    form = graph_form_of(batch, positions, mixer.order)
    return BranchesGraph(mixer) if form == "branches" else BlendedGraph(mixer, folded=form == "folded")


def graph_form_of(batch: int, positions: int, order: ChannelOrder) -> Form:
    """The cheapest form where weights are constants of a graph.

    A runtime packs those once, but a weight of an image at every call, and many small products of a batch are slower
    than one large: `branches` pays for longer than in `choose_form`. Measured in ONNX Runtime.
    """
    if positions > len(order.channels) + 2 * order.moving:
        return "folded"
    return "branches" if batch > 1 or 4 * positions < len(order.channels) else "blended"


class BlendedGraph(nn.Module):
    """`BlendedMixer` with its residual connection, by one product whose weight is made for each image.

    Args:
        mixer: the fused mixer; its channel order is kept.
        folded: multiply the projection into that weight.
    """

    def __init__(self, mixer: BlendedMixer, folded: bool) -> None:
        super().__init__()
        self.order, self.folded = mixer.order, folded
        self.weights = BranchWeights(mixer)
        still = self.order.still
        width, height, channels = mixer.width_rows, mixer.height_rows, mixer.channel_rows
        none = torch.zeros_like(mixer.width_bias)
        # Rows of M(a) that one branch alone scales, a bias after each branch's; the channel FC has none.
        branches = ((channels, none), (width, mixer.width_bias), (height, mixer.height_bias))
        self.own_rows = _parameter(torch.stack([torch.cat([rows[still:], bias[None]]) for rows, bias in branches]))
        # The unmoved channels, which all three share: as the branch weights sum to 1, the channel FC's need no scaling.
        self.still_rows = _parameter(channels[:still])
        self.still_width = _parameter(width[:still] - channels[:still])
        self.still_height = _parameter(height[:still] - channels[:still])
        self.proj_rows = mixer.proj_rows
        self.proj_bias = mixer.proj_bias
        if folded:  # the projection's bias takes the row of the channel FC's
            addend = torch.zeros(still + 3 * (self.order.moving + 1), len(none), dtype=none.dtype, device=none.device)
            addend[len(self.order.channels)] = mixer.proj_bias
            self.folded_addend = _parameter(addend)

    def forward(self, x_nhwc: Tensor, u_nhwc: Tensor, in_place: bool) -> Tensor:  # noqa: ARG002
        """`x + mixer(u)`, as `BlendedMixer` has it; nothing is done in place."""
        batch, height, width, channels = u_nhwc.shape
        ones = u_nhwc.new_ones((batch, height, width, 1))
        along_width, along_height = moved_parts(u_nhwc, self.order)
        stacked = torch.cat([u_nhwc, ones, *along_width, ones, *along_height, ones], -1).flatten(1, 2)
        # A product with ones: runtimes are slower at averages.
        mean_nc = (ones.view(batch, 1, height * width) @ stacked).squeeze(1) / (height * width)
        matrix = self._blend(self.weights(mean_nc))
        if self.folded:
            mixed = stacked @ (matrix @ self.proj_rows + self.folded_addend)
        else:
            mixed = stacked @ matrix @ self.proj_rows + self.proj_bias
        return x_nhwc + mixed.view(batch, height, width, channels)

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
        # In double: the rows of the shifted channels are known here as what they lose against the mean of all.
        lost = mixer.lost_rows.double()
        mean = mixer.mean_rows.double().clone()
        mean[still:] += lost[:moving] + lost[moving:]
        none = torch.zeros_like(hidden_bias)[None].double()
        parts = [mean, hidden_bias.double()[None], -lost[:moving], none, -lost[moving:], none]
        self.hidden_rows = _parameter(torch.cat(parts).to(hidden_bias.dtype))
        by_branch = mixer.logit_rows.view(-1, 3, size)[:, [2, 0, 1]]  # channels, width, height
        self.logit_rows = _parameter(by_branch.flatten(1))
        self.logit_bias = _parameter(mixer.logit_bias.view(3, size)[[2, 0, 1]].flatten())

    def forward(self, mean_nc: Tensor) -> Tensor:
        """(batch, inputs) -> (batch, 3, channels): channels, width, height; they sum to 1 over the branches."""
        hidden = F.gelu(mean_nc @ self.hidden_rows)
        logits = hidden @ self.logit_rows + self.logit_bias
        return logits.view(-1, 3, logits.shape[-1] // 3).softmax(1)


class BranchesGraph(nn.Module):
    """`BlendedMixer` with its residual connection, by one product for each branch: for maps of few positions."""

    def __init__(self, mixer: BlendedMixer) -> None:
        super().__init__()
        self.order = mixer.order
        self.weights = BranchWeights(mixer)
        self.width_rows, self.height_rows = mixer.width_rows, mixer.height_rows
        self.channel_rows = mixer.channel_rows
        self.width_bias, self.height_bias = mixer.width_bias, mixer.height_bias
        self.proj_rows, self.proj_bias = mixer.proj_rows, mixer.proj_bias

    def forward(self, x_nhwc: Tensor, u_nhwc: Tensor, in_place: bool) -> Tensor:  # noqa: ARG002
        """`x + mixer(u)`, as `BlendedMixer` has it; nothing is done in place."""
        batch, height, width, _ = u_nhwc.shape
        ones = u_nhwc.new_ones((batch, height, width, 1))
        still = u_nhwc[..., : self.order.still]
        moved_width, moved_height = moved_parts(u_nhwc, self.order)
        stacked = torch.cat([u_nhwc, ones, *moved_width, ones, *moved_height, ones], -1).flatten(1, 2)
        mean_nc = (ones.view(batch, 1, height * width) @ stacked).squeeze(1) / (height * width)
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


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().contiguous().clone(), requires_grad=False)
