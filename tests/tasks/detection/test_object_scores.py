"""The scores of microscopists: counts by hand, and an independent implementation on random objects."""

from typing import Any

import numpy as np
import pytest

from cyclemlp.data.objects import Record
from cyclemlp.data.outlines import Patch, rle_of_mask
from cyclemlp.tasks.detection.object_scores import IOU_THRESHOLDS, ImageObjects, best_threshold, object_scores

SIZE = (20, 30)


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


def image(
    labels: list[Any], masks: list[Any], scores: list[float], crowd: list[bool] | None = None, **classes: list[int]
) -> ImageObjects:
    """Of labels and masks (H, W), of one class unless `label` and `mask` say other classes."""
    count = len(labels)
    record = Record(
        1, SIZE, np.zeros((count, 4), np.float32), np.array(classes.get("label", [0] * count), np.int64),
        np.array(crowd or [False] * count, bool), np.zeros(count), tuple(rle_of_mask(mask) for mask in labels),
    )  # fmt: skip
    patches = [Patch(0, 0, mask) for mask in masks]
    return ImageObjects.of(record, patches, scores, classes.get("mask", [0] * len(masks)))


def test_counts_by_hand() -> None:
    """A label found exactly, one with an IoU of 80 / 100, one missed, and a mask where nothing is."""
    labels = [rectangle(0, 0, 10, 10), rectangle(0, 12, 10, 10), rectangle(12, 0, 5, 5)]
    masks = [rectangle(15, 20, 2, 5), rectangle(0, 0, 10, 10), rectangle(0, 12, 10, 8)]
    scores = object_scores([image(labels, masks, [0.9, 0.8, 0.7])], 0.5)
    found = {row["IoU"]: row for row in scores["by_IoU"]}
    assert [(row["TP"], row["FP"], row["FN"]) for row in found.values()] == [(2, 1, 1)] * 4 + [(1, 2, 2)]
    assert [found[0.8][name] for name in ("accuracy", "F1", "PQ")] == pytest.approx([2 / 4, 4 / 6, 2 * 1.8 / 6])
    assert [found[0.9][name] for name in ("accuracy", "F1", "PQ")] == pytest.approx([1 / 5, 2 / 6, 2 / 6])
    assert scores["AJI"] == pytest.approx((100 + 80) / (100 + 100 + 25 + 10))
    # A higher threshold drops the two right masks.
    assert object_scores([image(labels, masks, [0.9, 0.8, 0.7])], 0.85)["by_IoU"][0]["FN"] == 3


def test_of_overlapping_masks_the_top_scoring_keeps_the_pixels() -> None:
    label = rectangle(0, 0, 10, 10)
    again, beside = rectangle(0, 1, 10, 10), rectangle(0, 8, 10, 10)
    found = image([label], [again, beside, label], [0.6, 0.7, 0.9])
    # `again` keeps 1 column of 10 and is left out, `beside` 8 of 10.
    assert found.mask_areas.tolist() == [100, 80]
    assert found.scores.tolist() == [0.9, 0.7]
    assert found.matches(0.5) == (1, 1.0, 1, 0)


def test_exact_halves_of_a_label_count_once() -> None:
    halves = [rectangle(0, 0, 10, 5), rectangle(0, 5, 10, 5)]
    assert image([rectangle(0, 0, 10, 10)], halves, [0.9, 0.8]).matches(0.5) == (1, 0.5, 1, 0)
    assert image(halves, [rectangle(0, 0, 10, 10)], [0.9]).matches(0.5) == (1, 0.5, 0, 1)


def test_an_object_of_another_class_is_no_match() -> None:
    label = rectangle(0, 0, 10, 10)
    found = image([label], [label], [0.9], label=[0], mask=[1])
    assert found.matches(0.5) == (0, 0.0, 1, 1)
    assert found.jaccard() == (0, 200)


def test_masks_in_regions_to_ignore_are_not_wrong() -> None:
    labels = [rectangle(0, 0, 10, 10), rectangle(0, 15, 10, 10)]
    found = image(labels, [rectangle(0, 0, 5, 5), rectangle(0, 15, 10, 10)], [0.9, 0.8], crowd=[True, False])
    assert found.matches(0.5) == (1, 1.0, 0, 0)
    assert found.jaccard() == (100, 100)


def test_nothing_found_scores_0_and_nothing_to_find_none() -> None:
    missed = object_scores([image([rectangle(0, 0, 5, 5)], [], [])], 0.5)
    assert (missed["by_IoU"][0]["accuracy"], missed["AJI"]) == (0.0, 0.0)
    empty = object_scores([image([], [], [])], 0.5)
    assert (empty["by_IoU"][0]["F1"], empty["AJI"]) == (None, None)
    assert object_scores([], 0.5)["AJI"] is None


def test_the_threshold_with_the_best_f1_is_chosen() -> None:
    """One right mask of score 0.6 and a wrong one of 0.4: thresholds from 0.41 to 0.6 are as good as each other."""
    label = rectangle(0, 0, 10, 10)
    found = image([label], [label, rectangle(12, 12, 3, 3)], [0.6, 0.4])
    assert best_threshold([found]) == pytest.approx(0.51)
    assert best_threshold([image([label], [], [])]) is None


def reference(labels: Any, masks: Any, least: float) -> tuple[int, float, int, int, int, int]:
    """TP, sum of IoUs, FP, FN, and AJI's intersection and union, of images of object numbers.

    The matches by an optimal assignment, as StarDist's `matching` finds them; AJI as Kumar et al. write it.
    """
    from scipy.optimize import linear_sum_assignment

    truth = [labels == number for number in range(1, labels.max() + 1)]
    found = [masks == number for number in range(1, masks.max() + 1)]
    overlaps = np.array([[(a & b).sum() / (a | b).sum() for b in found] for a in truth]).reshape(len(truth), len(found))
    benefit = (overlaps >= least) + overlaps / (2 * max(1, min(overlaps.shape)))
    rows, columns = linear_sum_assignment(-benefit)
    right = overlaps[rows, columns] >= least
    matched = int(right.sum())
    shared, joined, used = 0, 0, set()
    for i, a in enumerate(truth):
        best = int(overlaps[i].argmax()) if len(found) and overlaps[i].max() > 0 else None
        shared += 0 if best is None else int((a & found[best]).sum())
        joined += int(a.sum() if best is None else (a | found[best]).sum())
        used.add(best)
    joined += sum(int(b.sum()) for j, b in enumerate(found) if j not in used)
    total = float(overlaps[rows, columns][right].sum())
    return matched, total, len(found) - matched, len(truth) - matched, shared, joined


def test_random_objects_score_as_by_an_independent_implementation() -> None:
    pytest.importorskip("scipy")
    numbers = np.random.default_rng(0)
    matched = 0
    for _ in range(20):
        tiles = np.kron(np.arange(1, 13).reshape(3, 4), np.ones((6, 7), int))
        labels = np.zeros(SIZE, int)
        labels[:18, :28] = tiles * (numbers.random(tiles.shape) < 0.9)
        masks = np.roll(np.where(numbers.random(SIZE) < 0.95, labels, 0), numbers.integers(0, 3, 2), (0, 1))
        objects = image([labels == i for i in range(1, 13)], [masks == i for i in range(1, 13)], [0.9] * 12)
        for least in IOU_THRESHOLDS:
            wanted = reference(labels, masks, least)
            assert (*objects.matches(least), *objects.jaccard()) == pytest.approx(wanted)
            matched += wanted[0]
    assert matched > 100
