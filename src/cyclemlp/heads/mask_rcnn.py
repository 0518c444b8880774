"""Mask R-CNN, a detector of the paper's COCO tables, on strides 4 to 64 of any pyramid.

He et al., "Mask R-CNN", ICCV 2017. Losses, matching, proposals and region features are torchvision's; its box
arithmetic is in float32 in any precision.
"""

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from cyclemlp.heads import torchvision_internals as tv
from cyclemlp.heads.detection_options import MASK_RCNN, STRIDES, DetectionHead
from cyclemlp.heads.detector import Anchors, Detector, Target, head_norm
from cyclemlp.heads.pyramid import PyramidBackbone

MASK_EDGE = 28
"""Rows and columns of the mask that is predicted for a box."""
Maps = dict[str, Tensor]
"""The levels of the pyramid, by name."""


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
    value_names = ("objectness", "moves", "logits", "offsets", "mask_logits")
    """Of what `values` returns, in order."""

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

    def values(self, images: Tensor, regions: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        """What the layers say of an image (1, C, H, W), its `regions` (R, 4) and the boxes `places` (P, 4) of objects.

        The outputs of `proposal_values`, `region_values` and `mask_values`.
        """
        maps = self.maps(images)
        return (*self.proposal_values(maps), *self.region_values(maps, regions), self.mask_values(maps, places))

    def proposal_values(self, maps: Maps) -> tuple[Tensor, Tensor]:
        """Of one image, objectness (anchors, 1) and box offsets (anchors, 4), in the order of `Anchors`."""
        objectness, moves = tv.concat_box_prediction_layers(*self.rpn.head(list(maps.values())))
        return objectness, moves

    def region_values(self, maps: Maps, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Of regions (R, 4) of one image, logits (R, 1 + K) with the background first, and offsets (R, 4 + 4K)."""
        heads = self.roi_heads
        logits, offsets = heads.box_predictor(heads.box_head(heads.box_roi_pool.of(maps, regions)))
        return logits, offsets

    def mask_values(self, maps: Maps, places: Tensor) -> Tensor:
        """Of boxes (P, 4) in one image, mask logits (P, 1 + K, 28, 28) with the background first."""
        heads = self.roi_heads
        logits: Tensor = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool.of(maps, places)))
        return logits


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
    strides = STRIDES[MASK_RCNN][: len(MaskRCNN.levels)]
    return tv.RegionHeads(
        tv.RegionPooling(strides, 7),
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
        mask_roi_pool=tv.RegionPooling(strides, MASK_EDGE // 2),
        mask_head=tv.MaskRCNNHeads(width, [width] * options.head_convs, 1, norm_layer=head_norm(width, options)),
        mask_predictor=tv.with_float32_outputs(tv.MaskRCNNPredictor(width, width, num_classes)),
    )
