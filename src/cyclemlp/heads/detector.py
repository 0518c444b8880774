"""What RetinaNet and Mask R-CNN have in common: a backbone, a feature pyramid, anchors and losses.

Pyramid and anchors are arranged as in the authors' detection code (PVT's configurations for mmdetection). Images come
normalised and at their final size; nothing here resizes them.
"""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from cyclemlp.heads.anchors import level_anchors, padded
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.heads.pyramid import PyramidBackbone

Target = dict[str, Tensor]
"""`boxes` (N, 4) float32 x0 y0 x1 y1 in pixels, `labels` (N,) int64 from 0; for Mask R-CNN `masks` (N, H, W) uint8."""


class Detector(nn.Module, ABC):
    """A backbone, a feature pyramid and anchors; what the two detectors have in common."""

    def __init__(self, head: str, backbone: PyramidBackbone, pyramid: FeaturePyramidNetwork, options: DetectionHead):
        super().__init__()
        self.head_name = head
        self.options = options
        self.backbone = backbone
        self.pyramid = pyramid

    def maps(self, images: Tensor) -> "OrderedDict[str, Tensor]":
        """The pyramid of images whose edges are multiples of 32."""
        found = self.backbone(images)
        maps: OrderedDict[str, Tensor] = self.pyramid({str(level): each for level, each in enumerate(found)})
        return maps

    def anchors(self, images: Tensor) -> list[Tensor]:
        """Anchors (positions * A, 4) of each level, for images whose edges are multiples of 32."""
        levels = level_anchors(self.head_name, self.options, images.shape[-2], images.shape[-1])
        return [torch.from_numpy(level).to(images.device) for level in levels]

    @abstractmethod
    def losses(self, images: Tensor, sizes: list[tuple[int, int]], targets: list[Target]) -> dict[str, Tensor]:
        """The terms of the loss, scalars whose sum is minimised.

        `images` (B, C, H, W) are filled up with zeros at right and bottom from their `sizes` (height, width). Every
        box must have an area; an image may have none.
        """


def fill_up(images: Tensor) -> Tensor:
    """Zeros (the mean colour) at the right and bottom, up to multiples of 32."""
    if torch.compiler.is_compiling():  # an exported model states its sizes instead
        return images
    height, width = images.shape[-2:]
    return F.pad(images, (0, padded(width) - width, 0, padded(height) - height))


def group_norm(width: int, channels: int) -> nn.GroupNorm:
    groups = math.gcd(32, width)
    if groups == width:  # one channel on a map of one position has no spread
        groups = max(1, width // 2)
    return nn.GroupNorm(groups, channels)
