import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from cyclemlp.data.tags import ink_on, place_tags, tag_size, write_tags

RED = (255, 0, 0)


@st.composite
def boxes_on_an_image(draw: st.DrawFn) -> tuple[tuple[int, int], list[tuple[float, float, float, float]]]:
    width, height = draw(st.integers(1, 400)), draw(st.integers(1, 400))
    x, y = st.floats(0, width), st.floats(0, height)
    corners = draw(st.lists(st.tuples(x, x, y, y), max_size=12))
    return (width, height), [(min(a, b), min(c, d), max(a, b), max(c, d)) for a, b, c, d in corners]


@given(boxes_on_an_image(), st.floats(1, 120), st.floats(1, 30))
def test_tags_lie_inside_the_image_and_not_on_each_other(
    case: tuple[tuple[int, int], list[tuple[float, float, float, float]]], width: float, height: float
) -> None:
    size, boxes = case
    places = place_tags(boxes, [(width, height)] * len(boxes), size)
    found = [place for place in places if place is not None]
    for i, (left, top, right, bottom) in enumerate(found):
        assert 0 <= left <= right <= size[0] - 1
        assert 0 <= top <= bottom <= size[1] - 1
        assert not any(left < o[2] and o[0] < right and top < o[3] and o[1] < bottom for o in found[:i])
    if boxes and width <= size[0] - 1 and 2 * height <= size[1] - 1:
        assert places[0] is not None  # the first one always finds room in an image that has some


def test_the_first_choice_is_above_the_box_and_the_next_below_it() -> None:
    box = (10.0, 30.0, 90.0, 90.0)
    assert place_tags([box, box], [(20, 10), (20, 10)], (100, 100)) == [(10, 20, 30, 30), (70, 20, 90, 30)]
    assert place_tags([(10.0, 5.0, 90.0, 80.0)], [(20, 10)], (100, 100)) == [(10, 80, 30, 90)]
    assert place_tags([(10.0, 5.0, 90.0, 99.0)], [(20, 10)], (100, 100)) == [(10, 5, 30, 15)]
    assert place_tags([(95.0, 30.0, 99.0, 90.0)], [(20, 10)], (100, 100)) == [(79, 20, 99, 30)]


@pytest.mark.parametrize(("size", "letters"), [((100, 100), 10), ((640, 480), 12), ((4000, 3000), 72)])
def test_letters_grow_with_the_image(size: tuple[int, int], letters: int) -> None:
    assert tag_size(size) == letters


def test_a_long_name_is_fitted_to_the_image() -> None:
    image = Image.new("RGB", (100, 100))
    write_tags(
        ImageDraw.Draw(image), image.size, 10, [((80.0, 50.0, 99.0, 99.0), "a name much longer than that 0.93", RED)]
    )
    columns = np.nonzero((np.asarray(image) == RED).all(2).any(0))[0]
    assert columns.min() >= 0
    assert 60 < columns.max() - columns.min() < 100


def test_names_are_read_on_their_colour() -> None:
    assert ink_on((240, 228, 66)) == (0, 0, 0)
    assert ink_on((0, 114, 178)) == (255, 255, 255)
