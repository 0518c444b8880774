"""What of a network is exported: the part from normalised images to raw outputs; decoding stays outside the file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from cyclemlp.errors import ConfigError
from cyclemlp.heads.anchors import SIZE_RULE
from cyclemlp.heads.detection_options import MASK_RCNN
from cyclemlp.heads.pyramid import STRIDE
from cyclemlp.inference.runtimes.network import Facts, SizeRule
from cyclemlp.models.forms.fused import graph_form
from cyclemlp.tasks.card import ModelCard

LEAST_EDGE = 35
"""Smallest edge of images of any size: torch.export takes a map of one position for a constant."""
LEAST_MULTIPLES = 2
"""Likewise for networks that take multiples of a stride."""
LARGEST_EDGE = 16384
LARGEST_BATCH = 4096

_NEEDS_MULTIPLES = ("swin_", "convnext")


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
        """Random normalised images of the size nearest to the one wanted that it takes."""
        size = [self.fixed_size or self.facts.size_rule.padded(edge) for edge in (height, width)]
        generator = torch.Generator().manual_seed(height * width + batch)
        return torch.randn(batch, self.facts.card.in_chans, *size, generator=generator)


def raw_network(model: nn.Module, card: ModelCard) -> RawNetwork:
    """The part of `model`, described by `card`, that is exported. Raises ConfigError where there is none."""
    return _RAW[card.task](model.eval(), card)


def _segmentation(model: nn.Module, card: ModelCard) -> RawNetwork:
    multiple = STRIDE if card.model.startswith(_NEEDS_MULTIPLES) else 1
    least = LEAST_EDGE if multiple == 1 else LEAST_MULTIPLES * multiple
    return RawNetwork(graph_form(model), Facts(card, SizeRule(least, multiple), ("logits",)))


def _classification(model: nn.Module, card: ModelCard) -> RawNetwork:
    assert card.image_size is not None  # the card checks that a classifier has it
    # A classifier is given images of its one size; a file for this size alone is smaller and faster.
    rule = SizeRule(card.image_size, card.image_size)
    form = graph_form(model, card.image_size)
    return RawNetwork(form, Facts(card, rule, ("logits",)), fixed_size=card.image_size)


def _detection(model: nn.Module, card: ModelCard) -> RawNetwork:
    if card.head == MASK_RCNN:
        raise ConfigError(
            "a mask-rcnn network cannot be exported: torch.export does not follow its proposals, whose number depends"
            " on the image (see docs/export.md); predict with the run folder, or train --head retinanet"
        )
    rule = SizeRule(LEAST_MULTIPLES * SIZE_RULE.multiple, SIZE_RULE.multiple)
    return RawNetwork(graph_form(model), Facts(card, rule, ("logits", "offsets")))


_RAW: Mapping[str, Callable[[nn.Module, ModelCard], RawNetwork]] = MappingProxyType(
    {
        "segmentation": _segmentation,
        "classification": _classification,
        "detection": _detection,
        "instance-segmentation": _detection,
    }
)
