"""RLE as COCO's mask API writes and reads it, and what is used of faster-coco-eval's for polygons."""

import numpy as np
import pytest
from faster_coco_eval.core import mask as api
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as reference

from cyclemlp.data.outlines import (
    Patch,
    Rle,
    bitmap_of_runs,
    parse_rle,
    rle_of_mask,
    rle_of_patch,
    rle_of_polygons,
    rle_of_runs,
    runs_of,
)


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


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=40), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_strings_are_those_of_pycocotools(runs: list[int], height: int, seed: int) -> None:
    values = np.repeat(np.arange(len(runs)) % 2, runs)
    width = -(-len(values) // height) + 1
    structured = np.resize(np.append(values, 0), height * width).reshape(width, height).T.astype(np.uint8)
    noise = np.random.default_rng(seed).integers(0, 2, (height, width)).astype(np.uint8)
    for mask in (structured, noise):
        size = (height, width)
        expected = reference.encode(np.asfortranarray(mask))
        rle = rle_of_mask(mask)
        assert rle.counts == expected["counts"]
        np.testing.assert_array_equal(bitmap_of_runs(runs_of(rle), height), reference.decode(expected))
        plain = {"size": list(size), "counts": runs_of(rle).tolist()}
        assert rle_of_runs(plain["counts"], size).counts == reference.frPyObjects(plain, *size)["counts"]


@given(st.lists(st.integers(0, 2**23), min_size=1, max_size=12))
def test_runs_of_any_length_and_order_come_back(runs: list[int]) -> None:
    """Also runs of no pixel, which an annotation file may have.

    Not beyond 2^23: pycocotools reserves six characters a run and none for the closing zero, so that runs of six
    characters each overwrite memory and may end the process.
    """
    rle = rle_of_runs(runs, (1, sum(runs)))
    assert runs_of(rle).tolist() == runs
    assert rle.counts == reference.frPyObjects({"size": [1, sum(runs)], "counts": runs}, 1, sum(runs))["counts"]


@given(st.binary(max_size=12) | st.text("0123456789:;<=>?@AOPQRSTUVWXYZno", max_size=12).map(str.encode))
def test_a_damaged_string_is_refused_or_read(counts: bytes) -> None:
    try:
        runs = runs_of(Rle((1, 1), counts))
    except ValueError:
        return
    assert runs.min() >= 0


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
        ("", "cannot be read"),
        ("6P", "cannot be read"),
        ("\u00e9", "cannot be read"),
        ("7O", "has a negative run"),
        ("P" * 8 + "1", "has a run that is too long"),
    ],
)
def test_wrong_counts_are_refused(counts: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_rle(counts, (2, 3))
    assert isinstance(parse_rle([2, 1, 3], (2, 3)), Rle)
