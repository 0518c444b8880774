"""Under bfloat16 autocast, boxes, anchors, their targets and their losses stay in float32.

The output layers are set to zero, so that the network's own rounding has no part in the comparison: whatever differs
between the precisions is in the boxes.
"""

import pytest
import torch
from torch import nn

from cyclemlp.heads.detection import build_detector
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.heads.detector import Detector, Target

EDGE = 640


def zero_detector(head: str) -> Detector:
    torch.manual_seed(0)
    options = DetectionHead(head_convs=1, candidates=1000, score_threshold=0.01)
    model = build_detector("cyclemlp_nano", head, 3, head_width=8, options=options)
    for name, layer in model.named_modules():
        if name.endswith(("cls_logits", "bbox_reg", "bbox_pred", "cls_score", "mask_fcn_logits")):
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return model


def target() -> Target:
    """Objects that proposals overlap, whose edges bfloat16 cannot hold: 593 and 621 would become 592 and 620."""
    boxes = torch.tensor([[593.0, 1, 621, 15], [37, 21, 601, 619]])
    masks = torch.zeros(2, EDGE, EDGE, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    return {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks}


@pytest.mark.parametrize("head", ["retinanet", "mask-rcnn"])
def test_losses_are_those_of_float32(head: str) -> None:
    model, images = zero_detector(head).train(), torch.rand(1, 3, EDGE, EDGE)
    found = []
    for mixed in (False, True):
        torch.manual_seed(0)  # anchors and proposals are sampled
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            found.append(model.losses(images, [(EDGE, EDGE)], [target()]))
    exact, rounded = found
    for name, loss in exact.items():
        assert rounded[name].dtype == torch.float32
        torch.testing.assert_close(rounded[name], loss, rtol=1e-6, atol=0)


def test_predicted_boxes_are_those_of_float32() -> None:
    model, images = zero_detector("mask-rcnn").eval(), torch.rand(1, 3, EDGE, EDGE)
    with torch.inference_mode():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(images)
    assert len(exact[0]) > 0
    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
