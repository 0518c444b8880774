"""What of a network is exported: the part from normalised images to raw outputs; decoding stays outside the file."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cyclemlp.errors import ConfigError
from cyclemlp.heads.network import SizeRule
from cyclemlp.heads.pyramid import PyramidNetwork
from cyclemlp.inference.runtimes.facts import Facts
from cyclemlp.models.forms.fused import graph_form
from cyclemlp.tasks.card import ModelCard

MIN_EDGE = 35
"""Smallest edge of images of any size: torch.export treats a map of one position as a constant."""
MIN_MULTIPLES = 2
"""The same for networks that take multiples of a stride."""
MAX_EDGE = 16384
MAX_BATCH = 4096


@dataclass(frozen=True)
class RawNetwork:
    """A network ready to be exported."""

    module: nn.Module
    """From images (N, C, H, W) to a tensor or a tuple of tensors."""
    facts: Facts
    """What the file will say about itself."""
    fixed_size: int | None = None
    """The one edge of the images it takes, None for all that the facts' size rule allows."""

    def example(self, batch: int, height: int, width: int) -> Tensor:
        """Random normalised images of the size it takes that is nearest to the one given."""
        size = [self.fixed_size or self.facts.size_rule.padded(edge) for edge in (height, width)]
        generator = torch.Generator().manual_seed(height * width + batch)
        return torch.randn(batch, self.facts.card.in_chans, *size, generator=generator)


def raw_network(model: nn.Module, card: ModelCard) -> RawNetwork:
    """The part of `model`, described by `card`, that is exported. Raises ConfigError where there is none."""
    model.eval()
    if isinstance(model, PyramidNetwork):
        multiple = model.size_rule.multiple
        rule = SizeRule(MIN_EDGE if multiple == 1 else MIN_MULTIPLES * multiple, multiple)
        return RawNetwork(model.export_form(), Facts(card, rule, model.output_names))
    size = card.image_size
    if size is None:
        raise ConfigError(
            f"a {card.task} network cannot be exported: it is neither for images of one size nor a PyramidNetwork;"
            " predict with the run folder"
        )
    # A network that sees images of one size alone gets a file for it, which is smaller and faster.
    return RawNetwork(graph_form(model, size), Facts(card, SizeRule(size, size), ("logits",)), fixed_size=size)
