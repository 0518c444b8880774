"""Detectors: the paper's sizes, anchors where they belong, and losses for images with and without objects."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from cyclemlp.errors import ConfigError
from cyclemlp.heads.anchors import SIZE_RULE, cell_anchors, grid_sizes, level_anchors
from cyclemlp.heads.detection import build_detector
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.heads.mask_rcnn import MaskRCNN
from cyclemlp.heads.retinanet import RetinaNet
from cyclemlp.heads.torchvision_internals import match_anchors

# Millions of parameters, CycleMLP's tables 4 and 5 (COCO).
PUBLISHED = {
    "retinanet": {"b1": 24.9, "b2": 36.5, "b3": 48.1, "b4": 61.5, "b5": 85.9},
    "mask-rcnn": {"b1": 34.8, "b2": 46.5, "b3": 58.0, "b4": 71.5, "b5": 95.3},
}
SMALL = DetectionHead(head_convs=1, head_norm="group")


@pytest.mark.parametrize(("head", "size"), [(head, size) for head, sizes in PUBLISHED.items() for size in sizes])
def test_parameters_are_those_of_the_paper(head: str, size: str) -> None:
    with torch.device("meta"):
        model = build_detector(f"cyclemlp_{size}", head, 80)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED[head][size], rel=0.01)


def _small(head: str, width: int = 32, classes: int = 3) -> RetinaNet | MaskRCNN:
    torch.manual_seed(0)
    return build_detector("resnet18", head, classes, head_width=width, options=SMALL)


def test_the_first_extra_level_comes_from_the_backbone_whatever_the_width() -> None:
    with torch.device("meta"):
        model = build_detector("cyclemlp_nano", "retinanet", 3, head_width=256)
    assert model.backbone.channels[-1] == 256
    assert model.pyramid.extra_blocks.use_P5 is False


@pytest.mark.parametrize("size", [(96, 64), (101, 75)])
def test_retinanet_gives_one_row_for_every_anchor(size: tuple[int, int]) -> None:
    model = _small("retinanet").eval()
    with torch.no_grad():
        logits, offsets = model(torch.rand(2, 3, *size))
    anchors = sum(map(len, level_anchors("retinanet", SMALL, *map(SIZE_RULE.padded, size))))
    assert logits.shape == (2, anchors, 3)
    assert offsets.shape == (2, anchors, 4)


def test_anchors_are_torchvisions_where_its_strides_are_exact_and_edges_whole() -> None:
    options = DetectionHead(anchor_ratios=(1.0,), anchor_scales=(1.0, 2.0))
    sizes = tuple((4 * stride, 8 * stride) for stride in (8, 16, 32, 64, 128))
    theirs = AnchorGenerator(sizes, ((1.0,),) * 5)
    images = ImageList(torch.zeros(1, 3, 256, 384), [(256, 384)])
    maps = [torch.zeros(1, 1, *size) for size in grid_sizes("retinanet", 256, 384)]
    expected = theirs(images, maps)[0].numpy()
    np.testing.assert_array_equal(np.concatenate(level_anchors("retinanet", options, 256, 384)), expected)


def test_an_anchor_of_half_the_ratio_is_twice_as_wide_as_high() -> None:
    x0, y0, x1, y1 = cell_anchors(8.0, (1.0,), (0.5,))[0]
    assert (x1 - x0) / (y1 - y0) == pytest.approx(2.0)
    assert (x1 - x0) * (y1 - y0) == pytest.approx(64.0)


def test_strides_stay_exact_where_a_map_does_not_divide_the_image() -> None:
    levels = level_anchors("retinanet", DetectionHead(anchor_scales=(1.0,), anchor_ratios=(1.0,)), 800, 800)
    rows = math.isqrt(len(levels[3]))
    assert rows == 13
    assert levels[3][1, 0] - levels[3][0, 0] == 64


@pytest.mark.parametrize("head", ["retinanet", "mask-rcnn"])
def test_every_part_learns_from_images_with_and_without_objects(head: str) -> None:
    model = _small(head).train()
    boxes, masks = torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.zeros(1, 64, 64, dtype=torch.uint8)
    masks[:, 8:40, 8:40] = 1
    full = {"boxes": boxes, "labels": torch.tensor([2]), "masks": masks}
    empty = {"boxes": boxes[:0], "labels": torch.zeros(0, dtype=torch.int64), "masks": masks[:0]}
    losses = model.losses(torch.rand(2, 3, 64, 64), [(64, 64), (64, 50)], [full, empty])
    torch.autograd.backward(torch.stack(list(losses.values())).sum())
    assert all(bool(torch.isfinite(loss.detach())) for loss in losses.values())
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("head", ["retinanet", "mask-rcnn"])
def test_images_without_any_object_have_a_finite_loss(head: str) -> None:
    model = _small(head).train()
    empty = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 64, 64, dtype=torch.uint8),
    }
    losses = model.losses(torch.rand(2, 3, 64, 64), [(64, 64)] * 2, [empty, empty])
    torch.autograd.backward(torch.stack(list(losses.values())).sum())
    assert all(bool(torch.isfinite(loss.detach())) for loss in losses.values())


def test_retinanets_loss_is_over_the_objects_of_the_batch() -> None:
    """An image with more anchors on objects weighs more, as in the authors' detector."""
    model = _small("retinanet").eval()
    assert isinstance(model, RetinaNet)
    images, sizes = torch.rand(2, 3, 64, 64), [(64, 64)] * 2
    boxes = [torch.tensor([[8.0, 8, 40, 40], [0, 0, 20, 20], [30, 30, 60, 60]]), torch.tensor([[40.0, 0, 60, 30]])]
    targets = [{"boxes": each, "labels": torch.zeros(len(each), dtype=torch.int64)} for each in boxes]
    counts = [int((match_anchors(each, model.anchors.of(images)) >= 0).sum()) for each in boxes]
    assert counts[0] != counts[1]
    with torch.no_grad():
        together = model.losses(images, sizes, targets)
        alone = [model.losses(images[i : i + 1], sizes[:1], targets[i : i + 1]) for i in range(2)]
    for name, loss in together.items():
        expected = sum(count * each[name] for count, each in zip(counts, alone, strict=True)) / sum(counts)
        torch.testing.assert_close(loss, expected)


def test_mask_rcnn_gives_scores_in_order_and_classes_from_0() -> None:
    model = _small("mask-rcnn").eval()
    with torch.no_grad():
        boxes, scores, labels, masks = model(torch.rand(1, 3, 70, 90))
    assert len(boxes) == len(scores) == len(labels) == len(masks)
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert set(labels.tolist()) <= {0, 1, 2}
    assert masks.shape[1:] == (28, 28)


@pytest.mark.parametrize("width", [8, 16, 32])
def test_group_norm_trains_on_a_map_of_one_position(width: int) -> None:
    model = build_detector("resnet18", "retinanet", 1, head_width=width, options=SMALL).eval()
    norms = [part for part in model.modules() if isinstance(part, nn.GroupNorm)]
    assert norms
    for norm in norms:
        norm.train()(torch.randn(1, width, 1, 1))


def test_group_norm_takes_any_width() -> None:
    with torch.device("meta"):
        model = build_detector("resnet18", "retinanet", 1, head_width=40, options=SMALL)
    assert any(isinstance(part, nn.GroupNorm) and part.num_groups == 8 for part in model.modules())


def test_an_unknown_head_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'retinanett' is not known; .* Did you mean 'retinanet'\?"):
        build_detector("resnet18", "retinanett", 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_norm": "groups"}, "--head-norm 'groups' is not allowed: one of none, group. Did you mean 'group'?"),
        ({"head_convs": 0}, "--head-convs 0 is not allowed: from 1 to 64"),
        ({"head_convs": 10**9}, "--head-convs 1000000000 is not allowed: from 1 to 64"),
        ({"detections": 10**9}, "--detections 1000000000 is not allowed: from 1 to 1000000"),
        ({"anchor_size": 0.0}, "--anchor-size 0.0 is not allowed: more than 0"),
        ({"anchor_ratios": ()}, "--anchor-ratios () is not allowed: 1 to 100 numbers above 0"),
        ({"nms": 1.5}, "--nms 1.5 is not allowed: from 0 to 1"),
    ],
)
def test_head_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DetectionHead(**options)  # type: ignore[arg-type]
    assert str(caught.value) == message
