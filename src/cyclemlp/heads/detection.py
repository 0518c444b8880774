"""RetinaNet and Mask R-CNN, the detectors of the paper's COCO tables, on any pyramid.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017; He et al., "Mask R-CNN", ICCV 2017. Losses, matching,
proposals and region features are torchvision's; pyramid and anchors are arranged as in the authors' detection code
(PVT's configurations for mmdetection): RetinaNet on strides 8 to 128, whose last two come from the backbone's last
map, Mask R-CNN on strides 4 to 64. Images come normalised and at their final size; nothing here resizes them.
"""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork, MultiScaleRoIAlign, box_iou
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from cyclemlp.errors import ConfigError, did_you_mean
from cyclemlp.heads.anchors import level_anchors, padded
from cyclemlp.heads.detection_options import MASK_RCNN, RETINANET, DetectionHead
from cyclemlp.heads.pyramid import PyramidBackbone

WIDTH = 256
"""Channels of pyramid and heads in the papers."""
MASK_EDGE = 28
"""Rows and columns in which Mask R-CNN gives the mask of a box."""

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


class RetinaNet(Detector):
    """Scores and boxes for anchors at every position of five levels, in one pass.

    Args:
        backbone: gives maps at strides 8, 16, 32.
        num_classes: logits of an anchor.
        width: channels of pyramid and head.
        options: the rest of the head's shape.
    """

    def __init__(self, backbone: PyramidBackbone, num_classes: int, width: int, options: DetectionHead) -> None:
        super().__init__(RETINANET, backbone, _pyramid_to_stride_128(backbone.channels, width), options)
        norm = partial(_group_norm, width) if options.head_norm == "group" else None
        anchors = options.anchors_per_position(RETINANET)
        self.head = RetinaNetHead(width, anchors, num_classes, norm_layer=norm)
        for branch in (self.head.classification_head, self.head.regression_head):
            branch.conv = _convolutions(width, options.head_convs, norm)
        self._matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, C, H, W), any size -> logits (B, anchors, K) and box offsets (B, anchors, 4).

        The anchors are those of the size filled up to multiples of 32, level by level, row by row;
        `cyclemlp.tasks.detection.decoding` turns the outputs into boxes.
        """
        outputs = self.head(list(self.maps(_fill_up(images)).values()))
        return outputs["cls_logits"], outputs["bbox_regression"]

    def losses(self, images: Tensor, sizes: list[tuple[int, int]], targets: list[Target]) -> dict[str, Tensor]:  # noqa: ARG002
        """`classification` (focal) and `bbox_regression` (L1), over the anchors with an object in the whole batch.

        So the authors' detector (mmdetection) counts. torchvision divides by those of each image, which gives most
        weight to the images with fewest objects; learning from sparse objects hardly begins then.
        """
        images = _fill_up(images)
        outputs = self.head(list(self.maps(images).values()))
        anchors = torch.cat(self.anchors(images))
        matched = [self._match(target["boxes"], anchors) for target in targets]
        outputs = {name: each.float() for name, each in outputs.items()}  # the loss is in float32 in any precision
        counts = [int((each >= 0).sum()) for each in matched]
        losses: dict[str, Tensor] = {}
        for i, (target, each, count) in enumerate(zip(targets, matched, counts, strict=True)):
            single = {name: output[i : i + 1] for name, output in outputs.items()}
            of_image = self.head.compute_loss([target], single, [anchors], [each])
            share = max(1, count) / max(1, sum(counts))
            losses = {name: losses.get(name, 0.0) + share * loss for name, loss in of_image.items()}
        return losses

    def _match(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Number of the box of each anchor, -1 for background, -2 for neither."""
        if not len(boxes):
            return torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
        matched: Tensor = self._matcher(box_iou(boxes, anchors))
        return matched


class MaskRCNN(Detector):
    """Proposals at every position of five levels; each is then classified, refined and given a mask.

    Args:
        backbone: gives maps at strides 4, 8, 16, 32.
        num_classes: classes without the background, which torchvision's parts count as class 0.
        width: channels of pyramid and heads.
        options: the rest of the heads' shape.
    """

    def __init__(self, backbone: PyramidBackbone, num_classes: int, width: int, options: DetectionHead) -> None:
        pyramid = FeaturePyramidNetwork(backbone.channels, width, extra_blocks=LastLevelMaxPool())
        super().__init__(MASK_RCNN, backbone, pyramid, options)
        self.rpn = _proposals(width, options)
        self.rpn.anchor_generator = _GivenAnchors()
        self.roi_heads = _region_heads(width, num_classes + 1, options)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One normalised image (1, C, H, W), any size -> what is in it, the likeliest first.

        Boxes (D, 4) in its pixels, scores (D,), labels (D,) int64 from 0, and mask probabilities (D, 28, 28) over
        the boxes.
        """
        detections, _ = self._run(_fill_up(images), [(images.shape[-2], images.shape[-1])], None)
        (found,) = detections
        return found["boxes"], found["scores"], found["labels"] - 1, found["masks"][:, 0]

    def losses(self, images: Tensor, sizes: list[tuple[int, int]], targets: list[Target]) -> dict[str, Tensor]:
        """`objectness`, `rpn_box_reg`, `classifier`, `box_reg` and `mask`."""
        counted_from_1 = [{**target, "labels": target["labels"] + 1} for target in targets]
        _, losses = self._run(_fill_up(images), sizes, counted_from_1)
        return {name.removeprefix("loss_"): loss for name, loss in losses.items()}

    def _run(
        self, images: Tensor, sizes: list[tuple[int, int]], targets: list[Target] | None
    ) -> tuple[list[Target], dict[str, Tensor]]:
        # torchvision's parts take and give float32 coordinates; autocast stays inside the layers.
        maps = self.maps(images)
        self.rpn.anchor_generator.anchors = torch.cat(self.anchors(images))
        proposals, proposal_losses = self.rpn(ImageList(images, sizes), maps, targets)
        detections, region_losses = self.roi_heads(maps, proposals, sizes, targets)
        return detections, {**proposal_losses, **region_losses}


class _GivenAnchors(nn.Module):
    """Stands in for torchvision's generator, whose strides are not exact; see `cyclemlp.heads.anchors`."""

    anchors: Tensor

    def forward(self, images: ImageList, _maps: list[Tensor]) -> list[Tensor]:
        return [self.anchors] * len(images.image_sizes)


def _fill_up(images: Tensor) -> Tensor:
    """Zeros (the mean colour) at the right and bottom, up to multiples of 32."""
    if torch.compiler.is_compiling():  # an exported model states its sizes instead
        return images
    height, width = images.shape[-2:]
    return F.pad(images, (0, padded(width) - width, 0, padded(height) - height))


def _pyramid_to_stride_128(channels: list[int], width: int) -> FeaturePyramidNetwork:
    """Strides 64 and 128 are made from the backbone's last map, as the authors' detector does."""
    extra = LastLevelP6P7(channels[-1], width)
    extra.use_P5 = False  # torchvision guesses by the widths, and is wrong where they happen to be equal
    return FeaturePyramidNetwork(channels, width, extra_blocks=extra)


def _group_norm(width: int, channels: int) -> nn.GroupNorm:
    groups = math.gcd(32, width)
    if groups == width:  # one channel on a map of one position has no spread
        groups = max(1, width // 2)
    return nn.GroupNorm(groups, channels)


def _convolutions(width: int, count: int, norm: "partial[nn.GroupNorm] | None") -> nn.Sequential:
    """A RetinaNet branch before its last convolution, with RetinaNet's initial weights."""
    layers = [Conv2dNormActivation(width, width, norm_layer=norm) for _ in range(count)]
    for layer in layers:
        nn.init.normal_(layer[0].weight, std=0.01)
        if layer[0].bias is not None:
            nn.init.zeros_(layer[0].bias)
    return nn.Sequential(*layers)


def _proposals(width: int, options: DetectionHead) -> RegionProposalNetwork:
    """Thresholds and samples of the papers; twice as many proposals are kept in training, as torchvision does."""
    count = options.candidates
    return RegionProposalNetwork(
        _GivenAnchors(),
        RPNHead(width, options.anchors_per_position(MASK_RCNN)),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2 * count, "testing": count},
        post_nms_top_n={"training": 2 * count, "testing": count},
        nms_thresh=0.7,
    )


def _region_heads(width: int, num_classes: int, options: DetectionHead) -> RoIHeads:
    """`num_classes` counts the background."""
    hidden = 4 * width
    levels = ["0", "1", "2", "3"]
    norm = partial(_group_norm, width) if options.head_norm == "group" else None
    return RoIHeads(
        MultiScaleRoIAlign(levels, output_size=7, sampling_ratio=2),
        TwoMLPHead(width * 7**2, hidden),
        FastRCNNPredictor(hidden, num_classes),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=512,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=options.score_threshold,
        nms_thresh=options.nms,
        detections_per_img=options.kept,
        mask_roi_pool=MultiScaleRoIAlign(levels, output_size=MASK_EDGE // 2, sampling_ratio=2),
        mask_head=MaskRCNNHeads(width, [width] * options.head_convs, 1, norm_layer=norm),
        mask_predictor=MaskRCNNPredictor(width, width, num_classes),
    )


HEADS: dict[str, type[RetinaNet] | type[MaskRCNN]] = {RETINANET: RetinaNet, MASK_RCNN: MaskRCNN}
_OUT_INDICES = {RETINANET: (1, 2, 3), MASK_RCNN: (0, 1, 2, 3)}


def build_detector(
    backbone: str,
    head: str,
    num_classes: int,
    *,
    head_width: int | None = None,
    options: DetectionHead | None = None,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
) -> RetinaNet | MaskRCNN:
    """A detector by the names of its parts.

    Args:
        backbone: timm's name of a network with a pyramid.
        head: a name in `HEADS`.
        num_classes: without the background.
        head_width: channels of pyramid and heads, None for the paper's 256.
        options: the rest of the head's shape, by default the papers'.
        in_chans: channels of the images.
        drop_path_rate: stochastic depth of the backbone.

    Raises:
        ConfigError: an unknown backbone or head, or a backbone without a pyramid.
    """
    if head not in HEADS:
        raise ConfigError(f"head {head!r} is not known; allowed: {', '.join(HEADS)}.{did_you_mean(head, HEADS)}")
    trunk = PyramidBackbone(backbone, out_indices=_OUT_INDICES[head], in_chans=in_chans, drop_path_rate=drop_path_rate)
    return HEADS[head](trunk, num_classes, head_width or WIDTH, options or DetectionHead())
