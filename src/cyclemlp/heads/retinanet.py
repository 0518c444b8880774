"""RetinaNet, a detector of the paper's COCO tables, on strides 8 to 128 of any pyramid.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. Losses and matching are torchvision's; the last two
strides come from the backbone's last map, as in the authors' detector.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork, box_iou
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from cyclemlp.heads.detection_options import RETINANET, DetectionHead
from cyclemlp.heads.detector import Detector, Target, fill_up, group_norm
from cyclemlp.heads.pyramid import PyramidBackbone


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
        norm = partial(group_norm, width) if options.head_norm == "group" else None
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
        outputs = self.head(list(self.maps(fill_up(images)).values()))
        return outputs["cls_logits"], outputs["bbox_regression"]

    def losses(self, images: Tensor, sizes: list[tuple[int, int]], targets: list[Target]) -> dict[str, Tensor]:  # noqa: ARG002
        """`classification` (focal) and `bbox_regression` (L1), over the anchors with an object in the whole batch.

        So the authors' detector (mmdetection) counts. torchvision divides by those of each image, which gives most
        weight to the images with fewest objects; learning from sparse objects hardly begins then.
        """
        images = fill_up(images)
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


def _pyramid_to_stride_128(channels: list[int], width: int) -> FeaturePyramidNetwork:
    """Strides 64 and 128 are made from the backbone's last map, as the authors' detector does."""
    extra = LastLevelP6P7(channels[-1], width)
    extra.use_P5 = False  # torchvision guesses by the widths, and is wrong where they happen to be equal
    return FeaturePyramidNetwork(channels, width, extra_blocks=extra)


def _convolutions(width: int, count: int, norm: "partial[nn.GroupNorm] | None") -> nn.Sequential:
    """A RetinaNet branch before its last convolution, with RetinaNet's initial weights."""
    layers = [Conv2dNormActivation(width, width, norm_layer=norm) for _ in range(count)]
    for layer in layers:
        nn.init.normal_(layer[0].weight, std=0.01)
        if layer[0].bias is not None:
            nn.init.zeros_(layer[0].bias)
    return nn.Sequential(*layers)
