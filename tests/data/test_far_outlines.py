"""Outlines that reach far beyond their image cost no more than those that do not, and have the same pixels in it."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclemlp.data import outlines
from cyclemlp.data.outlines import Polygons, draw_patch, extent_of, parse_outline, rle_of_mask, whole_mask

SIZE = (64, 96)


def drawn(*points: float) -> np.ndarray:
    outline = parse_outline([list(points)], SIZE)
    assert outline is not None
    return whole_mask(outline, SIZE)


@pytest.mark.parametrize("far", [1e3, 1e6, 1e7, 5e8, 1e11])
def test_a_ring_far_outside_is_drawn_where_it_crosses_the_image(far: float) -> None:
    began = time.process_time()
    half = drawn(-far, -far, 48, -far, 48, far, -far, far)
    triangle = drawn(0, 0, 96, 0, 96 + far, far, far, far)  # below the diagonal and the line parallel to it
    assert time.process_time() - began < 1
    assert half[:, :48].all()
    assert not half[:, 48:].any()
    rows, columns = np.mgrid[:64, :96]
    assert np.array_equal(triangle[columns > rows + 1], np.ones_like(triangle[columns > rows + 1]))
    assert not triangle[columns < rows - 1].any()


def test_a_ring_around_nothing_of_the_image_is_empty() -> None:
    assert not drawn(1e9, 1e9, 2e9, 1e9, 2e9, 2e9).any()
    assert not drawn(-1e9, 200, 1e9, 200, 0, 1e9).any()
    outline = parse_outline([[1e9, 1e9, 2e9, 1e9, 2e9, 2e9]], SIZE)
    assert outline is not None
    assert extent_of(outline, SIZE) is None


@settings(max_examples=60, deadline=None)
@given(points=st.lists(st.tuples(st.integers(-110, 200), st.integers(-110, 170)), min_size=3, max_size=8))
def test_near_rings_are_drawn_as_the_mask_api_does(points: list[tuple[int, int]]) -> None:
    ring = np.array(points, np.float64).ravel()
    plain = outlines.bitmap_of_runs(outlines.runs_of(outlines.rle_of_polygons([ring.tolist()], SIZE)), SIZE[0])
    assert np.array_equal(whole_mask(Polygons((ring,)), SIZE), plain)


@settings(max_examples=60, deadline=None)
@given(points=st.lists(st.tuples(st.integers(-900, 900), st.integers(-900, 900)), min_size=3, max_size=8))
def test_cut_rings_differ_from_the_mask_api_along_their_edges_alone(points: list[tuple[int, int]]) -> None:
    ring = np.array(points, np.float64).ravel()
    plain = outlines.bitmap_of_runs(outlines.runs_of(outlines.rle_of_polygons([ring.tolist()], SIZE)), SIZE[0])
    cut = whole_mask(Polygons((ring,)), SIZE)
    assert (cut != plain).mean() < 0.02


@settings(max_examples=60, deadline=None)
@given(points=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), min_size=1, max_size=20))
def test_the_extent_of_an_rle_is_that_of_its_pixels(points: list[tuple[int, int]]) -> None:
    mask = np.zeros((10, 13), np.uint8)
    for x, y in points:
        mask[y, x] = 1
    rle = rle_of_mask(mask)
    assert extent_of(rle, (10, 13)) == outlines.box_of(rle, (10, 13))
    assert draw_patch(rle, (10, 13)).whole((10, 13)).sum() == mask.sum()
