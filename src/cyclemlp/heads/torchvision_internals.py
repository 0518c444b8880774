"""What is used of torchvision's detectors that its documentation does not describe, in one place.

`tests/heads/test_torchvision_internals.py` states what is relied on, and fails when torchvision changes it.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor as FastRCNNPredictor
from torchvision.models.detection.faster_rcnn import TwoMLPHead as TwoMLPHead
from torchvision.models.detection.image_list import ImageList as ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads as MaskRCNNHeads
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor as MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead as RetinaNetHead
from torchvision.models.detection.roi_heads import RoIHeads as RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork as RegionProposalNetwork
from torchvision.models.detection.rpn import RPNHead as RPNHead
from torchvision.ops import FeaturePyramidNetwork, box_iou
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool as LastLevelMaxPool
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

BACKGROUND, NEITHER = Matcher.BELOW_LOW_THRESHOLD, Matcher.BETWEEN_THRESHOLDS
"""What `match_anchors` says of anchors without a box: teach them nothing is there, or nothing at all."""

Layer = TypeVar("Layer", bound=nn.Module)


def match_anchors(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Index of the box of each anchor, `BACKGROUND` or `NEITHER`, by RetinaNet's overlaps of 0.5 and 0.4.

    A box that no anchor overlaps that much is matched by those that overlap it most.
    """
    if not len(boxes):
        return torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
    return Matcher(0.5, 0.4, allow_low_quality_matches=True)(box_iou(boxes, anchors))


def box_offsets(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Offsets (N, 4) that move anchors (N, 4) onto boxes (N, 4): shifts in their sizes, and logarithms of growth."""
    return BoxCoder((1.0, 1.0, 1.0, 1.0)).encode_single(boxes, anchors)


def pyramid_to_stride_128(channels: list[int], width: int) -> FeaturePyramidNetwork:
    """A pyramid whose strides 64 and 128 are made from the backbone's last map, as the authors' detector does."""
    extra = LastLevelP6P7(channels[-1], width)
    extra.use_P5 = False  # torchvision guesses by the widths, and is wrong where they happen to be equal
    return FeaturePyramidNetwork(channels, width, extra_blocks=extra)


def with_float32_outputs(layer: Layer) -> Layer:
    """The layer itself, whose outputs are float32 from now on, also under autocast.

    torchvision decodes boxes in the type of a head's outputs: in bfloat16 an edge at 601 would come to lie at 600.
    """
    layer.register_forward_hook(_to_float32)
    return layer


def _to_float32(_layer: nn.Module, _inputs: object, outputs: object) -> object:
    if isinstance(outputs, list | tuple):
        return type(outputs)(_to_float32(_layer, _inputs, each) for each in outputs)
    return outputs.float() if isinstance(outputs, Tensor) else outputs
