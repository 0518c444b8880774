"""Semantic FPN, the head of the paper's ADE20K table, on any pyramid.

Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, section 3; sizes as in CycleMLP's section 4.4.
The decoder of that name in segmentation-models-pytorch is another network (no convolutions behind the lateral
connections, GroupNorm: 28.2 M parameters for B2 against the paper's 30.6 M), so the papers' is built here.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from cyclemlp.errors import ConfigError, did_you_mean
from cyclemlp.heads.pyramid import PyramidBackbone


class SemanticFPN(nn.Module):
    """Feature pyramid of `width`; each level convolved up to stride 4 at half of it, summed, classified.

    Args:
        in_channels: of the maps at strides 4, 8, 16, 32.
        num_classes: logits a position.
        width: of the pyramid, 256 in the papers; the branches have half of it.
        dropout: on whole channels before the classifier (mmsegmentation's 0.1).
    """

    def __init__(self, in_channels: list[int], num_classes: int, width: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.fpn = FeaturePyramidNetwork(in_channels, width)
        self.branches = nn.ModuleList(_branch(width, width // 2, level) for level in range(len(in_channels)))
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width // 2, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """NCHW maps, fine to coarse -> logits (batch, classes, height / 4, width / 4)."""
        levels = self.fpn({str(level): each for level, each in enumerate(maps)}).values()
        size = maps[0].shape[-2:]
        total = None
        for branch, level in zip(self.branches, levels, strict=True):
            x = F.interpolate(branch(level), size=size, mode="bilinear", align_corners=False)
            total = x if total is None else total + x
        out: Tensor = self.classifier(self.dropout(total))
        return out


def _branch(in_width: int, width: int, level: int) -> nn.Sequential:
    """`level` times convolution and doubling (once without doubling for level 0), towards stride 4."""
    layers: list[nn.Module] = []
    for step in range(max(1, level)):
        layers += [
            nn.Conv2d(in_width if step == 0 else width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        if step < level - 1:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)


HEADS: dict[str, type[SemanticFPN]] = {"semantic-fpn": SemanticFPN}


class SegmentationModel(nn.Module):
    """Backbone, head, and logits at the size of the image.

    Args:
        backbone: gives maps at strides 4, 8, 16, 32.
        head: takes them to logits at stride 4.
    """

    def __init__(self, backbone: PyramidBackbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (batch, in_chans, height, width), any size -> logits (batch, classes, height, width)."""
        height, width = images.shape[-2:]
        padded = self.backbone.pad(images)
        logits: Tensor = self.head(self.backbone(padded))
        logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def build_segmentation_model(
    backbone: str,
    head: str,
    num_classes: int,
    *,
    head_width: int | None = None,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
) -> SegmentationModel:
    """A segmentation network by the names of its parts.

    Args:
        backbone: timm's name of a network with a pyramid.
        head: a name in `HEADS`.
        num_classes: logits a position.
        head_width: channels of the head, None for the paper's.
        in_chans: channels of the images.
        drop_path_rate: stochastic depth of the backbone.

    Raises:
        ConfigError: an unknown backbone or head, or a backbone without a pyramid.
    """
    if head not in HEADS:
        raise ConfigError(f"head {head!r} is not known; allowed: {', '.join(HEADS)}.{did_you_mean(head, HEADS)}")
    trunk = PyramidBackbone(backbone, in_chans=in_chans, drop_path_rate=drop_path_rate)
    width = {} if head_width is None else {"width": head_width}
    return SegmentationModel(trunk, HEADS[head](trunk.channels, num_classes, **width))
