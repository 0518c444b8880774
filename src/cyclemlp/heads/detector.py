"""What RetinaNet and Mask R-CNN have in common: a backbone, a feature pyramid, anchors and losses.

Pyramid and anchors are arranged as in the authors' detection code (PVT's configurations for mmdetection). Images come
normalised and at their final size; nothing here resizes them.
"""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from cyclemlp.heads.anchors import SIZE_RULE, level_anchors
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.heads.pyramid import PyramidBackbone, PyramidNetwork
from cyclemlp.heads.torchvision_internals import ImageList

Target = dict[str, Tensor]
"""`boxes` (N, 4) float32 x0 y0 x1 y1 in pixels, `labels` (N,) int64 from 0; for Mask R-CNN `masks` (N, H, W) uint8.

`ignored` (M, 4) float32, if there are any, are boxes in which nothing is learnt. An anchor or a proposal of whose area
half or more lies in one of them is neither an object nor background, as with mmdetection's `ignore_iof_thr` of 0.5.
"""


class Anchors(nn.Module):
    """The anchors of a detector; stands in for torchvision's generator, whose strides are not exact (`anchors.py`)."""

    def __init__(self, head: str, options: DetectionHead) -> None:
        super().__init__()
        self._head, self._options = head, options

    def forward(self, images: ImageList, _maps: list[Tensor]) -> list[Tensor]:
        """Of each image."""
        return [self.of(images.tensors)] * len(images.image_sizes)

    def of(self, images: Tensor) -> Tensor:
        """(N, 4) float32, of all levels of the pyramid of these images, level by level."""
        levels = level_anchors(self._head, self._options, *map(SIZE_RULE.padded, images.shape[-2:]))
        return torch.from_numpy(np.concatenate(levels)).to(images.device)


class Detector(PyramidNetwork, ABC):
    """A backbone, a feature pyramid and anchors."""

    levels: tuple[int, ...]
    """Which of the backbone's maps, at strides 4, 8, 16, 32, it needs."""

    def __init__(self, head: str, backbone: PyramidBackbone, pyramid: FeaturePyramidNetwork, options: DetectionHead):
        super().__init__(backbone, SIZE_RULE)
        self.pyramid = pyramid
        self.anchors = Anchors(head, options)

    def maps(self, images: Tensor) -> "OrderedDict[str, Tensor]":
        """The feature pyramid of images of any size, which are padded to multiples of 32."""
        found = self.backbone(self.pad(images))
        return self.pyramid({str(level): each for level, each in enumerate(found)})

    @abstractmethod
    def losses(self, images: Tensor, sizes: list[tuple[int, int]], targets: list[Target]) -> dict[str, Tensor]:
        """The terms of the loss, float32 scalars whose sum is minimised.

        `images` (B, C, H, W) are padded with zeros at right and bottom from their `sizes` (height, width). Every
        box must have an area; an image may have none.
        """


def head_norm(width: int, options: DetectionHead) -> Callable[[int], nn.Module] | None:
    """What makes the normalisation layers of a head of `width`, None for a head without."""
    if options.head_norm == "none":
        return None
    groups = math.gcd(32, width)
    if groups == width:  # one channel on a map of one position has no spread
        groups = max(1, width // 2)
    return partial(nn.GroupNorm, groups)
