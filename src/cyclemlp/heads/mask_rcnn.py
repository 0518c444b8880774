"""Mask R-CNN, a detector of the paper's COCO tables, on strides 4 to 64 of any pyramid.

He et al., "Mask R-CNN", ICCV 2017. Losses, matching, proposals and region features are torchvision's; its box
arithmetic is in float32 in any precision.
"""

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from cyclemlp.errors import ConfigError
from cyclemlp.heads import torchvision_internals as tv
from cyclemlp.heads.detection_options import MASK_RCNN, DetectionHead
from cyclemlp.heads.detector import Anchors, Detector, Target, head_norm
from cyclemlp.heads.pyramid import PyramidBackbone
from cyclemlp.models.forms.fused import EXPORT_SIZE

MASK_EDGE = 28
"""Rows and columns of the mask that is predicted for a box."""


class MaskRCNN(Detector):
    """Proposals at every position of five levels; each is then classified, refined and given a mask.

    Args:
        backbone: returns maps at strides 4, 8, 16, 32.
        num_classes: classes without the background, which torchvision's parts count as class 0.
        width: channels of pyramid and heads.
        options: the rest of the heads' shape.
    """

    levels = (0, 1, 2, 3)
    output_names = ("boxes", "scores", "labels", "masks")

    def __init__(self, backbone: PyramidBackbone, num_classes: int, width: int, options: DetectionHead) -> None:
        pyramid = FeaturePyramidNetwork(backbone.channels, width, extra_blocks=tv.LastLevelMaxPool())
        super().__init__(MASK_RCNN, backbone, pyramid, options)
        self.rpn = _proposals(width, options, self.anchors)
        self.roi_heads = _region_heads(width, num_classes + 1, options)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One normalised image (1, C, H, W), any size -> the objects in it, the top-scoring first.

        Boxes (D, 4) in its pixels, scores (D,), labels (D,) int64 from 0, and mask probabilities (D, 28, 28) over
        the boxes.
        """
        maps, sizes = self.maps(images), [(images.shape[-2], images.shape[-1])]
        proposals, _ = self.rpn(tv.ImageList(images, sizes), maps, None)
        (found,), _ = self.roi_heads(maps, proposals, sizes, None)
        return found["boxes"], found["scores"], found["labels"] - 1, found["masks"][:, 0]

    def compiled_parts(self) -> list[nn.Module]:
        """Backbone, pyramid and the layers of the heads; between them stands what chooses and crops proposals."""
        regions = self.roi_heads
        heads = (regions.box_head, regions.box_predictor, regions.mask_head, regions.mask_predictor)
        return [*super().compiled_parts(), self.pyramid, self.rpn.head, *heads]

    def losses(self, images: Tensor, sizes: list[tuple[int, int]], targets: list[Target]) -> dict[str, Tensor]:
        """`objectness` and `rpn_box_reg` of the proposals, `classifier`, `box_reg` and `mask` of their regions."""
        counted_from_1 = [{**target, "labels": target["labels"] + 1} for target in targets]
        maps = self.maps(images)
        proposals, losses = self.rpn(tv.ImageList(images, sizes), maps, counted_from_1)
        losses |= self.roi_heads.losses(maps, proposals, sizes, list(map(_with_ignored, counted_from_1)))
        return {name.removeprefix("loss_"): loss for name, loss in losses.items()}

    def export_form(self, size: tuple[int, int] = (EXPORT_SIZE, EXPORT_SIZE)) -> nn.Module:  # noqa: ARG002
        """Raises ConfigError: the number of proposals depends on the image."""
        raise ConfigError(
            "a mask-rcnn network cannot be exported: torch.export does not follow its proposals, whose number depends"
            " on the image (see docs/export.md); predict with the run folder, or train --head retinanet"
        )


def _with_ignored(target: Target) -> Target:
    """The boxes to ignore follow those of the objects, with a label of their own."""
    ignored = target.get("ignored", target["boxes"][:0])
    labels = target["labels"].new_full((len(ignored),), tv.IGNORED)
    return {**target, "boxes": torch.cat([target["boxes"], ignored]), "labels": torch.cat([target["labels"], labels])}


def _proposals(width: int, options: DetectionHead, anchors: Anchors) -> tv.Proposals:
    """Thresholds and samples of the papers; twice as many proposals are kept in training, as torchvision does."""
    kept = {"training": 2 * options.compared, "testing": options.compared}
    return tv.Proposals(
        anchors,
        tv.with_float32_outputs(tv.RPNHead(width, options.anchors_per_position(MASK_RCNN))),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n=kept,
        post_nms_top_n=kept,
        nms_thresh=0.7,
    )


def _region_heads(width: int, num_classes: int, options: DetectionHead) -> tv.RegionHeads:
    """`num_classes` counts the background."""
    hidden = 4 * width
    levels = ["0", "1", "2", "3"]
    return tv.RegionHeads(
        MultiScaleRoIAlign(levels, output_size=7, sampling_ratio=2),
        tv.TwoMLPHead(width * 7**2, hidden),
        tv.with_float32_outputs(tv.FastRCNNPredictor(hidden, num_classes)),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=options.regions,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=options.score_threshold,
        nms_thresh=options.nms,
        detections_per_img=options.kept,
        mask_roi_pool=MultiScaleRoIAlign(levels, output_size=MASK_EDGE // 2, sampling_ratio=2),
        mask_head=tv.MaskRCNNHeads(width, [width] * options.head_convs, 1, norm_layer=head_norm(width, options)),
        mask_predictor=tv.with_float32_outputs(tv.MaskRCNNPredictor(width, width, num_classes)),
    )
