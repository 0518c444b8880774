"""What is used of torchvision's detectors that its documentation does not describe, in one place.

`tests/heads/test_torchvision_internals.py` states what is relied on, and fails when torchvision changes it.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

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
from torchvision.models.detection.roi_heads import fastrcnn_loss, maskrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork as RegionProposalNetwork
from torchvision.models.detection.rpn import RPNHead as RPNHead
from torchvision.models.detection.rpn import concat_box_prediction_layers as concat_box_prediction_layers
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, box_area, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool as LastLevelMaxPool
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.poolers import LevelMapper

from cyclemlp.heads.overlaps import box_overlaps
from cyclemlp.heads.region_pooling import SAMPLES, pooled_regions

BACKGROUND, NEITHER = Matcher.BELOW_LOW_THRESHOLD, Matcher.BETWEEN_THRESHOLDS
"""What `match_anchors` says of anchors without a box: teach them nothing is there, or nothing at all."""

IGNORED = -1
"""The label of boxes to ignore among the targets of `RegionHeads`; the sampler of torchvision leaves it out."""
MIN_IGNORED_SHARE = 0.5
"""Of the area of an anchor or a proposal that lies in an ignored box, from which on nothing is learnt from it."""

Layer = TypeVar("Layer", bound=nn.Module)


def match_anchors(boxes: Tensor, anchors: Tensor, ignored: Tensor | None = None) -> Tensor:
    """Index of the box of each anchor, `BACKGROUND` or `NEITHER`, by RetinaNet's overlaps of 0.5 and 0.4.

    A box that no anchor overlaps that much is matched by those that overlap it most. Anchors that lie in boxes that
    are `ignored` (M, 4) are neither; nor is background what such a box would have matched as an object.
    """
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    matches = _matches(matcher, boxes, anchors)
    if ignored is not None and len(ignored):
        matches[_no_evidence(matcher, matches == BACKGROUND, anchors, ignored)] = NEITHER
    return matches


def _matches(matcher: Matcher, boxes: Tensor, anchors: Tensor) -> Tensor:
    if not len(boxes):
        return torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
    return matcher(box_overlaps(boxes, anchors))


def _no_evidence(matcher: Matcher, background: Tensor, anchors: Tensor, ignored: Tensor) -> Tensor:
    """Which anchors (N, 4) say nothing because of ignored boxes (M, 4), of which there are some."""
    return overlapped(anchors, ignored) | (background & (_matches(matcher, ignored, anchors) != BACKGROUND))


def overlapped(boxes: Tensor, ignored: Tensor) -> Tensor:
    """Which boxes (N, 4) lie by half of their area or more in one of the ignored boxes (M, 4)."""
    edges = torch.min(boxes[:, None, 2:], ignored[:, 2:]) - torch.max(boxes[:, None, :2], ignored[:, :2])
    shares = edges.clamp(min=0).prod(dim=2) / box_area(boxes)[:, None].clamp(min=1e-6)
    return (shares >= MIN_IGNORED_SHARE).any(dim=1)


class Proposals(RegionProposalNetwork):  # type: ignore[misc]  # torchvision has no types
    """Torchvision's, which learns nothing from anchors in the boxes that targets name as `ignored` (M, 4)."""

    def __init__(self, *options: Any, **named: Any) -> None:
        super().__init__(*options, **named)
        self.box_similarity = box_overlaps

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Of each image the label of each anchor, 1 object, 0 background, -1 neither; and the box it matches."""
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for found, places, target in zip(labels, anchors, targets, strict=True):
            if len(ignored := target.get("ignored", target["boxes"][:0])):
                found[_no_evidence(self.proposal_matcher, found == 0, places, ignored)] = IGNORED
        return labels, boxes

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Of objectness and boxes; 0 where there is nothing to learn from, of which torchvision takes the mean."""
        if all((each == IGNORED).all() for each in labels):
            return objectness.sum() * 0.0, pred_bbox_deltas.sum() * 0.0
        losses: tuple[Tensor, Tensor] = super().compute_loss(objectness, pred_bbox_deltas, labels, regression_targets)
        return losses


class RegionHeads(RoIHeads):  # type: ignore[misc]  # torchvision has no types
    """Torchvision's, which learns nothing from proposals in boxes with the label `IGNORED`, the last of a target."""

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Of each image the index of the box of each proposal, and its label, 0 for background, -1 for neither."""
        counts = [int((labels != IGNORED).sum()) for labels in gt_labels]
        boxes, names = ([each[:n] for each, n in zip(all_, counts, strict=True)] for all_ in (gt_boxes, gt_labels))
        matched, found = super().assign_targets_to_proposals(proposals, boxes, names)
        for labels, places, given, count in zip(found, proposals, gt_boxes, counts, strict=True):
            if count < len(given):
                labels[overlapped(places, given[count:])] = IGNORED
        return matched, found

    def losses(
        self,
        maps: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """As torchvision's `forward` in training, but 0, not NaN, where no proposal is left to learn from."""
        regions, matched, labels, offsets = self.select_training_samples(proposals, targets)
        logits, moves = self.box_predictor(self.box_head(self.box_roi_pool(maps, regions, sizes)))
        classifier, box_reg = logits.sum(), moves.sum()  # of nothing, 0
        if len(logits):
            classifier, box_reg = fastrcnn_loss(logits, moves, labels, offsets)
        objects = [each > 0 for each in labels]
        regions, matched = ([e[o] for e, o in zip(all_, objects, strict=True)] for all_ in (regions, matched))
        masks = self.mask_predictor(self.mask_head(self.mask_roi_pool(maps, regions, sizes)))
        wanted, names = ([target[key] for target in targets] for key in ("masks", "labels"))
        mask = maskrcnn_loss(masks, regions, wanted, names, matched)
        return {"loss_classifier": classifier, "loss_box_reg": box_reg, "loss_mask": mask}


class RegionPooling(MultiScaleRoIAlign):  # type: ignore[misc]  # torchvision has no types
    """Torchvision's, on maps of known strides, which it guesses from the first image: wrong for one of 40 rows.

    Args:
        strides: of the maps "0", "1", and so on, fine to coarse.
        edge: rows and columns of what is pooled.
    """

    def __init__(self, strides: Sequence[int], edge: int) -> None:
        super().__init__([str(level) for level in range(len(strides))], edge, sampling_ratio=SAMPLES)
        self.scales = [1 / stride for stride in strides]
        self.map_levels = LevelMapper(int(math.log2(strides[0])), int(math.log2(strides[-1])))

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """The features (R, C, edge, edge) of the regions `boxes` of all images; on a CPU by `pooled_regions`."""
        maps = [x[name] for name in self.featmap_names]
        if maps[0].device.type != "cpu" or torch.compiler.is_compiling():
            found: Tensor = super().forward(x, boxes, image_shapes)
            return found
        images = torch.repeat_interleave(torch.arange(len(boxes)), torch.tensor([len(each) for each in boxes]))
        levels = self.map_levels(boxes)
        return pooled_regions(maps, self.scales, torch.cat(boxes), levels, images, self.output_size[0])

    def of(self, maps: dict[str, Tensor], regions: Tensor) -> Tensor:
        """The features (R, C, edge, edge) of regions (R, 4) of one image, as `forward` has them.

        Each region is pooled from every map, so that no shape depends on how many regions a map has: torch.export
        follows it, and runtimes need not take empty tensors.
        """
        places = torch.cat([torch.zeros_like(regions[:, :1]), regions], dim=1)
        levels = self.map_levels([regions])[:, None, None, None]
        pooled = [
            roi_align(maps[name], places, self.output_size, scale, self.sampling_ratio)
            for name, scale in zip(self.featmap_names, self.scales, strict=True)
        ]
        found = pooled[0]
        for level, each in enumerate(pooled[1:], start=1):
            found = torch.where(levels == level, each, found)
        return found


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
