"""What is used of faster-coco-eval's mask API; these fail if a version of it behaves differently."""

import numpy as np
import pytest
from faster_coco_eval.core import mask as api

from cyclemlp.data.outlines import Patch, rle_of_patch
from cyclemlp.data.rle import Rle, bitmap_of_runs, parse_rle, rle_of_mask, rle_of_polygons, rle_of_runs, runs_of


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(1, 1), (7, 1), (1, 9), (20, 30), (70, 41)])
def test_runs_make_up_the_mask_that_was_encoded(size: tuple[int, int], seed: int) -> None:
    mask = (np.random.default_rng(seed).random(size) < (0.0, 0.1, 0.5, 0.9, 1.0)[seed]).astype(np.uint8)
    rle = rle_of_mask(mask)
    assert rle.size == size
    assert isinstance(rle.counts, bytes)
    np.testing.assert_array_equal(bitmap_of_runs(runs_of(rle), size[0]), mask)
    np.testing.assert_array_equal(api.decode({"size": list(size), "counts": rle.counts}), mask)
    assert rle_of_runs(runs_of(rle).tolist(), size).counts == rle.counts
    assert rle_of_patch(Patch(0, 0, mask), size).counts == rle.counts


def test_a_square_by_hand() -> None:
    rle = rle_of_polygons([[1, 1, 3, 1, 3, 3, 1, 3]], (5, 4))
    expected = np.zeros((5, 4), np.uint8)
    expected[1:3, 1:3] = 1
    np.testing.assert_array_equal(bitmap_of_runs(runs_of(rle), 5), expected)
    assert runs_of(rle).tolist() == [6, 2, 3, 2, 7]


def test_overlapping_polygons_are_united() -> None:
    left, right = [0, 0, 2, 0, 2, 2, 0, 2], [1, 0, 3, 0, 3, 2, 1, 2]
    assert bitmap_of_runs(runs_of(rle_of_polygons([left, right], (2, 4))), 2).tolist() == [[1, 1, 1, 0]] * 2


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 2], "does not add up to the image's pixels"),
        ([-1, 7], "does not add up to the image's pixels"),
        (None, "without an RLE"),
        ("1", "does not add up to the image's pixels"),
    ],
)
def test_wrong_counts_are_refused(counts: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_rle(counts, (2, 3))
    assert isinstance(parse_rle([2, 1, 3], (2, 3)), Rle)
