"""Segmentation networks: a backbone's maps, a dense head, and logits at the size of the image."""

from typing import NamedTuple

from torch import Tensor, nn

from cyclemlp.heads.pyramid import PyramidBackbone, PyramidNetwork, head_by_name, resized
from cyclemlp.heads.semantic_fpn import SemanticFPN
from cyclemlp.heads.upernet import AuxiliaryHead, UperNet

HEADS: dict[str, type[SemanticFPN] | type[UperNet]] = {"semantic-fpn": SemanticFPN, "upernet": UperNet}
WITH_AUXILIARY = ("upernet",)
"""Heads that the papers train together with an auxiliary head."""
MIN_BATCH = {"semantic-fpn": 1, "upernet": 2}
"""Images that a training batch needs for BatchNorm."""


class TrainingLogits(NamedTuple):
    """What the loss is computed from, at the size of the image."""

    logits: Tensor
    auxiliary: Tensor | None
    """Of the auxiliary head, where the network has one."""


class SegmentationModel(PyramidNetwork):
    """Backbone, head, and logits at the size of the image.

    Args:
        backbone: returns maps at strides 4, 8, 16, 32.
        head: makes logits at stride 4 of them.
        auxiliary: makes logits at stride 16 of them, for a second term of the loss.
    """

    training_only = ("auxiliary",)
    """Parts that are not saved with the network."""

    def __init__(self, backbone: PyramidBackbone, head: nn.Module, auxiliary: nn.Module | None = None) -> None:
        super().__init__(backbone, backbone.size_rule)
        self.head = head
        self.auxiliary = auxiliary

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (batch, in_chans, height, width), any size -> logits (batch, classes, height, width)."""
        (logits,) = self._run(images, self.head)
        return logits

    def training_logits(self, images: Tensor) -> TrainingLogits:
        """The logits of `forward` and those of the auxiliary head."""
        if self.auxiliary is None:
            return TrainingLogits(self(images), None)
        return TrainingLogits(*self._run(images, self.head, self.auxiliary))

    def compiled_parts(self) -> list[nn.Module]:
        """Backbone and heads, without the auxiliary head where there is none."""
        heads = [self.head] if self.auxiliary is None else [self.head, self.auxiliary]
        return [*super().compiled_parts(), *heads]

    def _run(self, images: Tensor, *heads: nn.Module) -> list[Tensor]:
        height, width = images.shape[-2:]
        padded = self.pad(images)
        maps = self.backbone(padded)
        return [resized(head(maps), padded.shape[-2:])[..., :height, :width] for head in heads]


def build_segmentation_model(
    backbone: str,
    head: str,
    num_classes: int,
    *,
    head_width: int | None = None,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
    auxiliary: bool = False,
) -> SegmentationModel:
    """A segmentation network by the names of its parts.

    Args:
        backbone: timm's name of a network with a pyramid.
        head: a name in `HEADS`.
        num_classes: logits per position.
        head_width: channels of the head, None for the paper's; an auxiliary head has half of it.
        in_chans: channels of the images.
        drop_path_rate: stochastic depth of the backbone.
        auxiliary: whether a head of `WITH_AUXILIARY` gets its auxiliary head.

    Raises:
        ConfigError: an unknown backbone or head, or a backbone without a pyramid.
    """
    make = head_by_name(head, HEADS)
    trunk = PyramidBackbone(backbone, in_chans=in_chans, drop_path_rate=drop_path_rate)
    width = {} if head_width is None else {"width": head_width}
    half = {} if head_width is None else {"width": head_width // 2}
    second = AuxiliaryHead(trunk.channels, num_classes, **half) if auxiliary and head in WITH_AUXILIARY else None
    return SegmentationModel(trunk, make(trunk.channels, num_classes, **width), second)
