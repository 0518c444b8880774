"""Decoding is torchvision's; average precision is pycocotools', to the last digit."""

import contextlib
import copy
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models.detection import RetinaNet
from torchvision.ops import batched_nms

from cyclemlp.data.objects import Record, coco_truth
from cyclemlp.data.outlines import Patch, rle_of_mask, rle_of_patch
from cyclemlp.heads.anchors import level_anchors
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.tasks.detection import decoding as detection_decoding
from cyclemlp.tasks.detection.decoding import Detections, decode, paste_patch, suppress
from cyclemlp.tasks.detection.metrics import DetectionCounts


@pytest.mark.parametrize("size", [(128, 96), (100, 90)])
def test_decoding_gives_what_torchvision_gives(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    options = DetectionHead(candidates=200)
    levels = level_anchors("retinanet", options, 128, 96)
    logits = [torch.randn(1, len(level), 3, generator=generator) - 2 for level in levels]
    offsets = [torch.randn(1, len(level), 4, generator=generator) for level in levels]

    class Bare(RetinaNet):  # type: ignore[misc]
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            from torchvision.models.detection._utils import BoxCoder

            self.box_coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
            self.score_thresh, self.nms_thresh = options.score_threshold, options.nms
            self.detections_per_img, self.topk_candidates = options.kept, options.compared

    heads = {"cls_logits": logits, "bbox_regression": offsets}
    (theirs,) = Bare().postprocess_detections(heads, [[torch.from_numpy(level) for level in levels]], [size])
    ours = decode(torch.cat(logits, 1)[0].numpy(), torch.cat(offsets, 1)[0].numpy(), options, size)
    assert len(ours.scores) == options.kept
    np.testing.assert_allclose(ours.scores, theirs["scores"].numpy(), rtol=1e-6)
    np.testing.assert_array_equal(ours.labels, theirs["labels"].numpy())
    np.testing.assert_allclose(ours.boxes_xyxy, theirs["boxes"].numpy(), rtol=1e-5, atol=1e-4)


def test_suppression_is_torchvisions() -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 60, (300, 2))
    boxes = np.concatenate([corners, corners + random.uniform(2, 30, (300, 2))], axis=1).astype(np.float32)
    scores, labels = random.permutation(300).astype(np.float32), random.integers(0, 3, 300)
    theirs = batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels), 0.4)
    np.testing.assert_array_equal(suppress(boxes, scores, labels, 0.4, 1000), theirs.numpy())


def test_a_full_mask_fills_its_box_and_one_outside_the_image_is_cut() -> None:
    full = np.ones((28, 28), dtype=np.float32)
    mask = paste_patch(full, np.array([2, 3, 10, 8], dtype=np.float32), (12, 12)).whole((12, 12))
    assert mask.sum() == 8 * 5
    assert mask[3:8, 2:10].all()
    assert paste_patch(full, np.array([-4, -4, 4, 4], dtype=np.float32), (12, 12)).whole((12, 12)).sum() == 16


def test_a_mask_computed_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    probabilities, box = random.random((28, 28)).astype(np.float32), np.array([-3.5, 4.2, 61.1, 90.9], dtype=np.float32)
    at_once = paste_patch(probabilities, box, (80, 70))
    assert (at_once.top, at_once.left, at_once.bitmap.shape) == (4, 0, (76, 62))
    monkeypatch.setattr(detection_decoding, "_MAX_PASTED_PIXELS", 300)
    np.testing.assert_array_equal(paste_patch(probabilities, box, (80, 70)).bitmap, at_once.bitmap)


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (90, 5, 95, 9), (5, -9, 9, -2)])
def test_a_box_without_pixels_in_the_image_has_an_empty_mask(box: tuple[float, ...]) -> None:
    full, edges = np.ones((28, 28), dtype=np.float32), np.array(box, dtype=np.float32)
    assert paste_patch(full, edges, (80, 70)).bitmap.size == 0
    assert not paste_patch(full, edges, (80, 70)).whole((80, 70)).any()


@pytest.mark.parametrize("frame", [(0, 0, 9, 7), (0, 2, 9, 5), (2, 0, 6, 7), (3, 3, 4, 4), (0, 0, 0, 0)])
@pytest.mark.parametrize("density", [0.0, 0.5, 1.0])
def test_rle_of_a_part_are_those_of_the_whole(frame: tuple[int, int, int, int], density: float) -> None:
    top, left, bottom, right = frame
    whole = np.zeros((9, 7), dtype=np.uint8)
    patch = whole[top:bottom, left:right]
    patch[:] = np.random.default_rng(0).random(patch.shape) < density
    assert rle_of_patch(Patch(top, left, patch), (9, 7)).counts == rle_of_mask(whole).counts


def _made_up(images: int = 6, masks: bool = True) -> list[tuple[Record, Detections]]:
    """Objects of three classes and boxes near them, some of the wrong class, some of nothing, one crowd."""
    random = np.random.default_rng(3)
    made = []
    for number in range(images):
        count = int(random.integers(3, 12))
        corners = random.integers(0, 100, (count, 2))
        sizes = random.integers(6, 110, (count, 2))
        boxes = np.concatenate([corners, np.minimum(corners + sizes, 200)], axis=1).astype(np.float32)
        labels = random.integers(0, 3, count)
        outlines = []
        for x0, y0, x1, y1 in boxes.astype(int):
            mask = np.zeros((200, 200), dtype=np.uint8)
            mask[y0:y1, x0:x1] = 1
            outlines.append(rle_of_mask(mask))
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).astype(np.float64)
        crowd = np.arange(count) == (0 if number == 0 else -1)
        record = Record(number + 1, (200, 200), boxes, labels, crowd, areas, tuple(outlines))
        found = np.clip(np.repeat(boxes, 2, 0) + random.normal(0, 5, (2 * count, 4)), 0, 200).astype(np.float32)
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        right = np.where(random.random(2 * count) < 0.8, np.repeat(labels, 2), random.integers(0, 3, 2 * count))
        probabilities = np.ones((2 * count, 28, 28), dtype=np.float32) if masks else None
        scores = random.random(2 * count).astype(np.float32)
        made.append((record, Detections(found, scores, right, probabilities)))
    return made


def reference_results(counts: DetectionCounts, kind: str) -> list[dict[str, Any]]:
    """As reference tools write them: results for masks have no boxes, whose areas would count as those of the masks."""
    results = copy.deepcopy(counts.results)
    return [{key: each[key] for key in each if kind != "segm" or key != "bbox"} for each in results]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_average_precision_is_that_of_pycocotools(kind: str) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    counts = DetectionCounts(masks=True)
    for record, found in _made_up():
        counts.add(record, found, 3)
    ours = counts.metrics(("a", "b", "c"))
    with contextlib.redirect_stdout(io.StringIO()):
        labels = COCO()
        labels.dataset = coco_truth(counts.records.values(), ("a", "b", "c"), (1, 2, 3))
        labels.createIndex()
        comparison = COCOeval(labels, labels.loadRes(reference_results(counts, kind)), kind)
        for step in (comparison.evaluate, comparison.accumulate, comparison.summarize):
            step()
    json.dumps(counts.results)  # they are written to a file afterwards
    prefix = {"bbox": "box_", "segm": "mask_"}[kind]
    names = ("mAP", "AP50", "AP75", "APs", "APm", "APl")
    assert [ours[prefix + name] for name in names] == pytest.approx(comparison.stats[:6].tolist(), abs=1e-12)
    assert 0 < ours[prefix + "mAP"] < 1


def ring(x: int, y: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """A square ring of 576 pixels, in a box of 1600."""
    mask = np.zeros((200, 200), np.uint8)
    mask[y : y + 40, x : x + 40] = 1
    mask[y + 4 : y + 36, x + 4 : x + 36] = 0
    return mask


def test_masks_are_small_or_large_by_their_own_area() -> None:
    """Of three rings found two are there: those are small masks in boxes that are not."""
    there, found = [(10, 10), (100, 10)], [(10, 10), (10, 100), (100, 10)]
    boxes = [np.array([[x, y, x + 40, y + 40] for x, y in places], np.float32) for places in (there, found)]
    masks = [ring(*place) for place in there]
    areas = np.array([float(mask.sum()) for mask in masks])
    outlines = tuple(rle_of_mask(mask) for mask in masks)
    record = Record(1, (200, 200), boxes[0], np.zeros(2, int), np.zeros(2, bool), areas, outlines)
    shape = np.ones((28, 28), np.float32)
    shape[3:-3, 3:-3] = 0
    counts = DetectionCounts(masks=True)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    counts.add(record, Detections(boxes[1], scores, np.zeros(3, int), np.stack([shape] * 3)), 1)
    metrics = counts.metrics(("ring",))
    assert metrics["mask_mAP"] == metrics["mask_APs"] == pytest.approx(0.835, abs=1e-3)


def test_parts_counted_apart_add_up_in_any_order() -> None:
    made = _made_up(masks=False)
    whole, first, second = (DetectionCounts(masks=False) for _ in range(3))
    for number, (record, found) in enumerate(made):
        whole.add(record, found, 3)
        (second if number % 2 else first).add(record, found, 3)
    second.merge(first)
    assert second.metrics(("a", "b", "c")) == whole.metrics(("a", "b", "c"))


def test_nothing_found_scores_0_and_nothing_to_find_none() -> None:
    record: Any = _made_up(1)[0][0]
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    counts = DetectionCounts(masks=False)
    counts.add(record, nothing, 3)
    assert counts.metrics(("a", "b", "c"))["mAP"] == 0.0
    empty = DetectionCounts(masks=False)
    empty.add(record.select(np.zeros(len(record.labels), dtype=bool)), nothing, 3)
    assert empty.metrics(("a", "b", "c"))["mAP"] is None
