"""Mask R-CNN, a detector of the paper's COCO tables, on strides 4 to 64 of any pyramid.

He et al., "Mask R-CNN", ICCV 2017. Losses, matching, proposals and region features are torchvision's.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from cyclemlp.heads.detection_options import MASK_RCNN, DetectionHead
from cyclemlp.heads.detector import Detector, Target, fill_up, group_norm
from cyclemlp.heads.pyramid import PyramidBackbone

MASK_EDGE = 28
"""Rows and columns in which Mask R-CNN gives the mask of a box."""


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
        detections, _ = self._run(fill_up(images), [(images.shape[-2], images.shape[-1])], None)
        (found,) = detections
        return found["boxes"], found["scores"], found["labels"] - 1, found["masks"][:, 0]

    def losses(self, images: Tensor, sizes: list[tuple[int, int]], targets: list[Target]) -> dict[str, Tensor]:
        """`objectness`, `rpn_box_reg`, `classifier`, `box_reg` and `mask`."""
        counted_from_1 = [{**target, "labels": target["labels"] + 1} for target in targets]
        _, losses = self._run(fill_up(images), sizes, counted_from_1)
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
    norm = partial(group_norm, width) if options.head_norm == "group" else None
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
