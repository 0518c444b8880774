"""Nothing is learnt where an object is to be ignored: neither that it is there nor that it is not."""

from functools import partial

import pytest
import torch
from torch import Tensor

from cyclemlp.heads import torchvision_internals as tv
from cyclemlp.heads.detection import build_detector
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.heads.detector import Detector, Target

HEIGHT, WIDTH = 64, 96
EVERYWHERE = [0.0, 0, WIDTH, HEIGHT]
ANCHORS = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [5, 0, 15, 10], [30, 30, 40, 40], [0, 0, 40, 40]])


def detector(head: str) -> Detector:
    torch.manual_seed(0)
    options = DetectionHead(head_convs=1, anchor_size=2.0, anchor_scales=(1.0,), candidates=50)
    return build_detector("resnet18", head, 2, head_width=16, options=options).train()


def target(boxes: list[list[float]], ignored: list[list[float]]) -> Target:
    masks = torch.zeros(len(boxes), HEIGHT, WIDTH, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[int(top) : int(bottom), int(left) : int(right)] = 1
    labels = torch.arange(len(boxes)) % 2
    found = (torch.tensor(each).reshape(-1, 4) for each in (boxes, ignored))
    return {**dict(zip(("boxes", "ignored"), found, strict=True)), "labels": labels, "masks": masks}


def losses_and_gradients(head: str, *targets: Target) -> tuple[dict[str, Tensor], list[Tensor]]:
    model = detector(head)
    images = torch.rand(len(targets), 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    terms = model.losses(images, [(HEIGHT, WIDTH)] * len(targets), list(targets))
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    terms = {name: term.detach() for name, term in terms.items()}
    return terms, [each.grad for each in model.parameters() if each.grad is not None]


@pytest.mark.parametrize("head", ["retinanet", "mask-rcnn"])
@pytest.mark.parametrize("boxes", [[], [[20.0, 12, 60, 44]]])
def test_an_image_that_is_ignored_as_a_whole_gives_no_loss_and_no_gradient(head: str, boxes: list[list[float]]) -> None:
    outside = 16 * 128.0  # anchors reach beyond the image
    everything = [[-outside, -outside, outside, outside]]
    terms, gradients = losses_and_gradients(head, target(boxes, everything), target([], everything))
    assert {name: float(term) for name, term in terms.items()} == dict.fromkeys(terms, 0.0)
    assert gradients
    assert all(not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("head", ["retinanet", "mask-rcnn"])
def test_the_rest_of_the_image_is_still_learnt_from(head: str) -> None:
    (plain, _), (some, gradients) = (losses_and_gradients(head, target([], each)) for each in ([], [EVERYWHERE]))
    name = {"retinanet": "classification", "mask-rcnn": "objectness"}[head]
    assert float(some[name]) > 0  # anchors that reach far beyond the image
    assert float(some[name]) != float(plain[name])
    assert any(gradient.any() for gradient in gradients)


def test_retinanets_anchors_over_an_ignored_object_get_no_gradient_and_the_others_the_same() -> None:
    model, ignored = detector("retinanet"), torch.tensor([[16.0, 8, 60, 40]])
    anchors = model.anchors.of(torch.zeros(1, 3, HEIGHT, WIDTH))
    logits, offsets = (each.detach().requires_grad_() for each in model(torch.rand(1, 3, HEIGHT, WIDTH)))
    found = []
    for boxes in ([], ignored.tolist()):
        model.forward = lambda _images: (logits, offsets)
        terms = model.losses(torch.zeros(1, 3, HEIGHT, WIDTH), [(HEIGHT, WIDTH)], [target([], boxes)])
        found.append(torch.autograd.grad(sum(terms.values(), torch.zeros(())), logits)[0][0])
    plain, ignoring = found
    inside = tv.overlapped(anchors, ignored)
    assert 0 < int(inside.sum()) < len(anchors)
    assert plain.all()
    assert not ignoring[inside].any()
    unmatched = ~inside & (tv.match_anchors(ignored, anchors) == tv.BACKGROUND)
    # Not to the bit: vector instructions round otherwise than the last values of an array, which have none.
    torch.testing.assert_close(ignoring[unmatched], plain[unmatched], rtol=1e-4, atol=1e-9)


def test_anchors_that_lie_half_in_an_ignored_region_are_neither_whatever_else_they_match() -> None:
    boxes, crowd = torch.tensor([[5.0, 0, 15, 10], [30, 30, 40, 40]]), torch.tensor([[0.0, 0, 12, 12]])
    matches = tv.match_anchors(boxes, ANCHORS, crowd)
    assert matches.tolist() == [tv.NEITHER, tv.NEITHER, tv.NEITHER, 1, tv.BACKGROUND]


def test_an_anchor_that_an_ignored_object_would_have_matched_is_no_background() -> None:
    small = torch.tensor([[33.0, 33, 36, 36]])  # 0.09 of the best anchor's area
    assert tv.match_anchors(ANCHORS[:0], ANCHORS, small).tolist() == [*[tv.BACKGROUND] * 3, tv.NEITHER, tv.BACKGROUND]


def test_proposals_over_an_ignored_object_are_not_drawn() -> None:
    heads = detector("mask-rcnn").get_submodule("roi_heads")
    assert isinstance(heads, tv.RegionHeads)
    proposals = [ANCHORS.clone()]
    boxes, labels = torch.tensor([[30.0, 30, 40, 40], [0, 0, 12, 12]]), torch.tensor([2, tv.IGNORED])
    matched, found = heads.assign_targets_to_proposals(proposals, [boxes], [labels])
    assert found[0].tolist() == [-1, -1, -1, 2, 0]
    assert int(matched[0].max()) == 0


@pytest.mark.parametrize("head", ["retinanet", "mask-rcnn"])
def test_a_target_without_ignored_objects_is_learnt_from_as_before(head: str) -> None:
    found = []
    for keys in (("boxes", "labels", "masks"), ("boxes", "labels", "masks", "ignored")):
        whole = target([[20.0, 12, 60, 44]], [])
        torch.manual_seed(3)
        found.append(partial(losses_and_gradients, head)({key: whole[key] for key in keys})[0])
    assert found[0] == found[1]
