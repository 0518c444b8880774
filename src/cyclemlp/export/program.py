"""The step all formats share: torch.export of a network from normalised images to outputs.

For detection the outputs are objects, of one image of any size; `raw` leaves decoding outside of the file. For the
others batch and, where the network allows, height and width are free.
"""

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from cyclemlp.errors import ConfigError, reason_of
from cyclemlp.heads.decoded import DECODED_NAMES, DecodedRetinaNet
from cyclemlp.heads.decoded_mask_rcnn import OBJECT_NAMES, PLACE_NAMES, DecodedMaskRCNN
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.heads.mask_rcnn import MaskRCNN
from cyclemlp.heads.network import SizeRule
from cyclemlp.heads.pyramid import PyramidNetwork
from cyclemlp.heads.retinanet import RetinaNet
from cyclemlp.inference.runtimes.facts import Facts
from cyclemlp.models.forms.fused import EXPORT_SIZE, graph_form
from cyclemlp.tasks.card import ModelCard

MIN_EDGE = 35
"""Smallest edge of images of any size: torch.export treats a map of one position as a constant."""
MIN_MULTIPLES = 2
"""The same for networks that take multiples of a stride."""
MAX_EDGE = 16384
MAX_BATCH = 4096

_EXAMPLE = (2, 320, 448)
"""Batch, height and width that the network is traced at: all different, so that none can stand for another, and large
enough that no map of a pyramid to stride 128 has a single row, which torch.export would treat as a constant."""

_ODD_EXAMPLE = (1, 301, 437)
"""The same for a network that pads images by itself: one that it has to pad."""

_UNEXPORTABLE = (RuntimeError, ValueError, AssertionError, NotImplementedError, TypeError)
"""What torch.export raises where it cannot follow a network; its own errors are subclasses of these."""


@dataclass(frozen=True)
class RawNetwork:
    """A network ready to be exported."""

    module: nn.Module
    """From images (N, C, H, W) to a tensor or a tuple of tensors."""
    facts: Facts
    """What the file will say about itself."""
    fastest_size: tuple[int, int]
    """Height and width that the graph was arranged for; its values are right at every size."""
    fixed_size: int | None = None
    """The one edge of the images it takes, None for all that the facts' size rule allows."""
    objects: tuple[str, ...] = ()
    """Names of its first outputs, where these are the objects of one image; what they were made from follows."""

    def example(self, batch: int, height: int, width: int) -> Tensor:
        """Random normalised images of the size it takes that is nearest to the one given."""
        size = [self.fixed_size or self.facts.size_rule.padded(edge) for edge in (height, width)]
        generator = torch.Generator().manual_seed(height * width + batch)
        return torch.randn(1 if self.objects else batch, self.facts.card.in_chans, *size, generator=generator)


def raw_network(
    model: nn.Module, card: ModelCard, for_size: tuple[int, int] | None = None, *, raw: bool = False
) -> RawNetwork:
    """The part of `model`, described by `card`, that is exported. Raises ConfigError where there is none.

    `for_size` is the height and width, in network pixels, at which the graph is to be fastest; it is for networks that
    take images of any size. `raw` leaves out decoding.
    """
    model.eval()
    if isinstance(model, PyramidNetwork):
        multiple = model.size_rule.multiple
        rule = SizeRule(MIN_EDGE if multiple == 1 else MIN_MULTIPLES * multiple, multiple)
        place = for_size or (EXPORT_SIZE, EXPORT_SIZE)
        if isinstance(model, MaskRCNN) or (isinstance(model, RetinaNet) and not raw):
            return _decoded_network(model, card, place, raw=raw)
        return RawNetwork(model.export_form(place), Facts(card, rule, model.output_names), place)
    size = card.image_size
    if size is None:
        raise ConfigError(
            f"a {card.task} network cannot be exported: it is neither for images of one size nor a PyramidNetwork;"
            " predict with the run folder"
        )
    if for_size not in (None, (size, size)):
        raise ConfigError(
            f"--for-size: a {card.task} network is exported for its own {size}x{size} pixels; leave it out"
        )
    # A network that sees images of one size alone gets a file for it, which is smaller and faster.
    facts = Facts(card, SizeRule(size, size), ("logits",))
    return RawNetwork(graph_form(model, size), facts, (size, size), fixed_size=size)


def _decoded_network(model: RetinaNet | MaskRCNN, card: ModelCard, place: tuple[int, int], *, raw: bool) -> RawNetwork:
    """A detector with everything up to its objects. Raises ConfigError where Mask R-CNN is to be without that."""
    if raw and isinstance(model, MaskRCNN):
        raise ConfigError(
            "--raw is not for mask-rcnn, whose masks are those of the boxes that it found itself: leave it out"
        )
    options, form = card.detection or DetectionHead(), model.export_form(place)
    if isinstance(form, MaskRCNN):
        facts = Facts(card, SizeRule(1), (*OBJECT_NAMES, *PLACE_NAMES, *form.value_names))
        return RawNetwork(DecodedMaskRCNN(form, options).eval(), facts, place, objects=OBJECT_NAMES)
    facts = Facts(card, SizeRule(1), (*DECODED_NAMES, *model.output_names))
    module = DecodedRetinaNet(form, options, len(card.classes)).eval()
    return RawNetwork(module, facts, place, objects=DECODED_NAMES)


def export_program(raw: RawNetwork) -> ExportedProgram:
    """The network as a graph. Raises ConfigError, in one line, where torch.export cannot follow it."""
    example = raw.example(*(_ODD_EXAMPLE if raw.objects else _EXAMPLE))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about the exporter's own code, not ours
            shapes = (_free(raw, example),)
            program = torch.export.export(raw.module, (example,), dynamic_shapes=shapes, strict=False)
    except _UNEXPORTABLE as error:
        logging.getLogger(__name__).debug("torch.export failed", exc_info=error)
        reason = reason_of(error)
        raise ConfigError(
            f"model {raw.facts.card.model!r} cannot be exported: torch.export does not follow it ({reason});"
            " predict with the run folder, or train another --model (cyclemlp_*, activemlp_*, asmlp_*, resnet18,"
            " resnet50 and resnet101 export)"
        ) from error

    if raw.objects:
        _widen(program)
    return program


def _widen(program: ExportedProgram) -> None:
    """Let a program that pads take images of any size.

    torch.export states sizes at which no map of the pyramid has a single position, but the graph is right at others.
    """
    for symbol, limits in program.range_constraints.items():
        if str(symbol).startswith("s"):  # those of the image; numbers of objects begin with u
            program.range_constraints[symbol] = type(limits)(1, MAX_EDGE)


def _free(raw: RawNetwork, example: Tensor) -> dict[int, Any]:
    """The axes of the images that may have other lengths than the example's."""
    if (
        raw.objects
    ):  # the guards, which nothing at run time reads, follow from the padding; limits would contradict them
        return {2: Dim.AUTO, 3: Dim.AUTO}
    axes: dict[int, Any] = {0: Dim("batch", min=1, max=MAX_BATCH)}
    if raw.fixed_size is not None:
        return axes
    rule = raw.facts.size_rule
    for axis, name in ((2, "height"), (3, "width")):
        assert rule.padded(example.shape[axis]) == example.shape[axis]
        if rule.multiple == 1:
            axes[axis] = Dim(name, min=rule.least, max=MAX_EDGE)
        else:
            units = Dim(f"{name}_units", min=rule.least // rule.multiple, max=MAX_EDGE // rule.multiple)
            axes[axis] = rule.multiple * units
    return axes
