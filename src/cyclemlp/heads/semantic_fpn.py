"""Semantic FPN, the head of the paper's ADE20K table, on any pyramid.

Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, section 3; sizes as in CycleMLP's section 4.4.
The decoder of that name in segmentation-models-pytorch is another network (no convolutions behind the lateral
connections, GroupNorm: 28.2 M parameters for B2 against the paper's 30.6 M), so the papers' is built here.
"""

from functools import reduce

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork

from cyclemlp.heads.pyramid import resized


class SemanticFPN(nn.Module):
    """Feature pyramid of `width`; each level convolved up to stride 4 at half of it, summed, classified.

    Args:
        in_channels: of the maps at strides 4, 8, 16, 32.
        num_classes: logits per position.
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
        branches = zip(self.branches, levels, strict=True)
        upsampled = (resized(branch(level), maps[0].shape[-2:]) for branch, level in branches)
        return self.classifier(self.dropout(reduce(torch.add, upsampled)))


def _branch(in_width: int, width: int, level: int) -> nn.Sequential:
    """`level` times convolution and doubling (once without doubling for level 0), towards stride 4."""
    layers: list[nn.Module] = []
    for step in range(max(1, level)):
        layers += Conv2dNormActivation(in_width if step == 0 else width, width)
        if step < level - 1:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)
