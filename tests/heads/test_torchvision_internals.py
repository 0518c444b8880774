"""What `cyclemlp.heads.torchvision_internals` relies on; a failure means that torchvision has changed it."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation, MultiScaleRoIAlign, box_iou

from cyclemlp.heads import torchvision_internals as internals
from cyclemlp.heads.detection import build_detector
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.heads.mask_rcnn import MaskRCNN
from cyclemlp.heads.overlaps import box_overlaps
from cyclemlp.heads.retinanet import RetinaNet

ANCHORS = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [5, 0, 15, 10], [30, 30, 40, 40], [0, 0, 10, 4.5]])
BOXES = torch.tensor([[0.0, 0, 10, 10], [38, 38, 50, 50]])


def test_anchors_are_matched_by_overlap_and_every_box_by_its_best() -> None:
    # IoU of the first box: 1, 0.9, 1/3, 0, 0.45; the second overlaps the fourth anchor alone, by less than 0.4.
    expected = [0, 0, internals.BACKGROUND, 1, internals.NEITHER]
    assert internals.match_anchors(BOXES, ANCHORS).tolist() == expected
    assert (internals.match_anchors(BOXES[:0], ANCHORS) == internals.BACKGROUND).all()
    assert internals.BACKGROUND < 0
    assert internals.NEITHER < 0


def test_overlaps_are_those_of_torchvision() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = 300 * torch.rand((20000, 2), generator=generator)
    anchors = torch.cat([corners, corners + 60 * torch.rand((20000, 2), generator=generator)], dim=1)
    for boxes in (anchors[::997], anchors[:1], anchors[:0]):
        assert torch.equal(box_overlaps(boxes, anchors), box_iou(boxes, anchors))
    assert box_overlaps(anchors[:3], anchors[:0]).shape == (3, 0)


def test_proposals_are_matched_by_them() -> None:
    network = build_detector("cyclemlp_nano", "mask-rcnn", 2, head_width=16)
    proposals = network.get_submodule("rpn")
    assert isinstance(proposals, internals.Proposals)
    assert proposals.box_similarity is box_overlaps


def test_box_offsets_are_those_of_the_paper() -> None:
    found = internals.box_offsets(torch.tensor([[10.0, 20, 30, 80]]), torch.tensor([[0.0, 0, 40, 30]]))
    # Centres (20, 50) and (20, 15), sizes (20, 60) and (40, 30).
    expected = torch.tensor([[0.0, 35 / 30, 0.5, 2.0]])
    expected[:, 2:] = expected[:, 2:].log()
    torch.testing.assert_close(found, expected)


def test_the_first_extra_level_is_made_from_the_backbones_last_map() -> None:
    pyramid = internals.pyramid_to_stride_128([4, 8], 8)  # equal widths: torchvision alone would take the other map
    maps = {"0": torch.randn(1, 4, 8, 8), "1": torch.randn(1, 8, 4, 4)}
    levels = pyramid(maps)
    assert torch.equal(levels["p6"], pyramid.extra_blocks.p6(maps["1"]))
    assert torch.equal(levels["p7"], pyramid.extra_blocks.p7(F.relu(levels["p6"])))


def test_retinanets_branches_are_convolutions_before_a_last_one() -> None:
    head = internals.RetinaNetHead(8, 3, 2, norm_layer=None)
    for branch, last, outputs in (
        (head.classification_head, "cls_logits", 3 * 2),
        (head.regression_head, "bbox_reg", 3 * 4),
    ):
        assert [type(part) for part in branch.conv] == [Conv2dNormActivation] * 4
        assert getattr(branch, last).out_channels == outputs
        branch.conv = nn.Identity()
    found = head([torch.zeros(1, 8, 2, 3), torch.zeros(1, 8, 1, 1)])
    assert {name: tuple(each.shape) for name, each in found.items()} == {
        "cls_logits": (1, 7 * 3, 2),
        "bbox_regression": (1, 7 * 3, 4),
    }


def test_our_loss_of_an_image_is_torchvisions() -> None:
    torch.manual_seed(0)
    model = build_detector("resnet18", "retinanet", 3, head_width=16, options=DetectionHead(head_convs=1)).eval()
    assert isinstance(model, RetinaNet)
    images = torch.rand(1, 3, 64, 64)
    target = {"boxes": torch.tensor([[8.0, 8, 40, 40], [30, 30, 60, 60]]), "labels": torch.tensor([2, 0])}
    with torch.no_grad():
        ours = model.losses(images, [(64, 64)], [target])
        outputs = dict(zip(("cls_logits", "bbox_regression"), model(images), strict=True))
        anchors = model.anchors.of(images)
        matches = [internals.match_anchors(target["boxes"], anchors)]
        theirs = model.head.compute_loss([target], outputs, [anchors], matches)
    torch.testing.assert_close(ours, theirs)


def test_the_proposal_network_takes_its_anchors_from_the_generator() -> None:
    torch.manual_seed(0)

    class Generator(nn.Module):
        def forward(self, images: internals.ImageList, maps: list[Tensor]) -> list[Tensor]:
            assert len(maps) == 1
            return [ANCHORS[[0, 3]] * scale for scale in images.scales]

    head = internals.RPNHead(4, 1)
    for layer in (head.cls_logits, head.bbox_pred):  # so that proposals are anchors
        nn.init.zeros_(layer.weight)
    limits = {"training": 10, "testing": 10}
    network = internals.RegionProposalNetwork(Generator(), head, 0.7, 0.3, 8, 0.5, limits, limits, 0.7).eval()
    images = internals.ImageList(torch.zeros(2, 3, 64, 64), [(64, 64), (64, 35)])
    images.scales = (1.0, 0.5)
    proposals, losses = network(images, {"0": torch.randn(2, 4, 1, 2)}, None)
    assert losses == {}
    for found, scale, right in zip(proposals, images.scales, (64.0, 35.0), strict=True):
        expected = (ANCHORS[[0, 3]] * scale).clamp(max=right)
        torch.testing.assert_close(found[found[:, 0].argsort()], expected)


@pytest.mark.parametrize("layer", [internals.RPNHead(4, 1), internals.FastRCNNPredictor(4, 2)])
def test_outputs_are_float32_under_autocast(layer: nn.Module) -> None:
    given = [torch.randn(1, 4, 2, 2)] if isinstance(layer, internals.RPNHead) else torch.randn(1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        plain = layer(given)
        cast = internals.with_float32_outputs(layer)(given)
    for one, other in zip(plain, cast, strict=True):
        pairs = zip(one, other, strict=True) if isinstance(one, list) else [(one, other)]
        for before, after in pairs:
            assert before.dtype == torch.bfloat16
            assert after.dtype == torch.float32
            assert torch.equal(before.float(), after)


def test_the_arguments_of_the_region_heads_are_those_we_give() -> None:
    known = set(inspect.signature(internals.RoIHeads).parameters)
    assert {"fg_iou_thresh", "bbox_reg_weights", "detections_per_img", "mask_roi_pool", "mask_predictor"} <= known
    model = build_detector("resnet18", "mask-rcnn", 2, head_width=16)
    assert isinstance(model, MaskRCNN)
    parts = dict(model.roi_heads.named_children())
    assert set(parts) == {"box_roi_pool", "box_head", "box_predictor", "mask_roi_pool", "mask_head", "mask_predictor"}


@pytest.mark.parametrize("count", [0, 60])
def test_regions_of_one_image_are_pooled_as_torchvision_does(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = {str(i): torch.randn(1, 3, 512 >> i, 320 >> i, generator=generator) for i in range(5)}
    corners = 1200 * torch.rand((count, 2), generator=generator)
    sizes = 2 ** (2 + 8 * torch.rand((count, 2), generator=generator))  # 4 to 1024 pixels: each map has some
    regions = torch.cat([corners, corners + sizes], dim=1)
    pooling = internals.RegionPooling((4, 8, 16, 32), 7)
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, sampling_ratio=2)
    assert torch.equal(pooling.of(maps, regions), theirs(maps, [regions], [(2048, 1280)]))
    torch.testing.assert_close(pooling.of(maps, regions), pooling(maps, [regions], [(40, 40)]), rtol=0, atol=1e-4)
    assert not count or set(pooling.map_levels([regions]).tolist()) == {0, 1, 2, 3}
