"""RetinaNet, a detector of the paper's COCO tables, on strides 8 to 128 of any pyramid.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. The last two strides come from the backbone's last map,
as in the authors' detector.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation, sigmoid_focal_loss

from cyclemlp.heads.detection_options import RETINANET, DetectionHead
from cyclemlp.heads.detector import Detector, Target, head_norm
from cyclemlp.heads.pyramid import PyramidBackbone
from cyclemlp.heads.torchvision_internals import (
    NEITHER,
    RetinaNetHead,
    box_offsets,
    match_anchors,
    pyramid_to_stride_128,
)


class RetinaNet(Detector):
    """Scores and boxes for anchors at every position of five levels, in one pass.

    Args:
        backbone: returns maps at strides 8, 16, 32.
        num_classes: logits of an anchor.
        width: channels of pyramid and head.
        options: the rest of the head's shape.
    """

    levels = (1, 2, 3)
    output_names = ("logits", "offsets")

    def __init__(self, backbone: PyramidBackbone, num_classes: int, width: int, options: DetectionHead) -> None:
        super().__init__(RETINANET, backbone, pyramid_to_stride_128(backbone.channels, width), options)
        norm = head_norm(width, options)
        self.head = RetinaNetHead(width, options.anchors_per_position(RETINANET), num_classes, norm_layer=norm)
        for branch in (self.head.classification_head, self.head.regression_head):
            branch.conv = _convolutions(width, options)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, C, H, W), any size -> logits (B, anchors, K) and box offsets (B, anchors, 4).

        The anchors are those of the size padded to multiples of 32, level by level, row by row;
        `cyclemlp.tasks.detection.decoding` turns the outputs into boxes.
        """
        outputs = self.head(list(self.maps(images).values()))
        return outputs["cls_logits"], outputs["bbox_regression"]

    def compiled_parts(self) -> list[nn.Module]:
        """Backbone, pyramid and head; matching and loss depend on how many objects there are."""
        return [*super().compiled_parts(), self.pyramid, self.head]

    def losses(self, images: Tensor, sizes: list[tuple[int, int]], targets: list[Target]) -> dict[str, Tensor]:  # noqa: ARG002
        """`classification` (focal) and `bbox_regression` (L1), over the anchors with an object in the whole batch.

        The authors' detector (mmdetection) counts them so. torchvision divides by those of each image, which gives the
        most weight to the images with the fewest objects; sparse objects are then learnt too slowly to be of use.
        """
        logits, offsets = (each.float() for each in self(images))  # the loss is in float32 in any precision
        anchors = self.anchors.of(images)
        matches = [match_anchors(target["boxes"], anchors, target.get("ignored")) for target in targets]
        matched_anchors = max(1, sum(int((match >= 0).sum()) for match in matches))
        terms = [
            (_focal_loss(scores, match, target["labels"]), _box_loss(moves, anchors, match, target["boxes"]))
            for scores, moves, match, target in zip(logits, offsets, matches, targets, strict=True)
        ]
        focal, boxes = (torch.stack(each).sum() / matched_anchors for each in zip(*terms, strict=True))
        return {"classification": focal, "bbox_regression": boxes}


def _focal_loss(logits: Tensor, match: Tensor, labels: Tensor) -> Tensor:
    """Sum over the anchors of an image that have a box or are background."""
    wanted = torch.zeros_like(logits)
    wanted[match >= 0, labels[match[match >= 0]]] = 1.0
    return sigmoid_focal_loss(logits[match != NEITHER], wanted[match != NEITHER], reduction="sum")


def _box_loss(offsets: Tensor, anchors: Tensor, match: Tensor, boxes: Tensor) -> Tensor:
    """Sum over the anchors of an image that have a box."""
    wanted = box_offsets(boxes[match[match >= 0]], anchors[match >= 0])
    return F.l1_loss(offsets[match >= 0], wanted, reduction="sum")


def _convolutions(width: int, options: DetectionHead) -> nn.Sequential:
    """A branch before its last convolution, with RetinaNet's initial weights."""
    norm = head_norm(width, options)
    layers = [Conv2dNormActivation(width, width, norm_layer=norm) for _ in range(options.head_convs)]
    for layer in layers:
        nn.init.normal_(layer[0].weight, std=0.01)
        if layer[0].bias is not None:
            nn.init.zeros_(layer[0].bias)
    return nn.Sequential(*layers)
