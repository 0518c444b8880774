import io

import numpy as np
import pytest
from PIL import Image

from cyclemlp.data.drawing import MAX_LEGEND, palette
from cyclemlp.tasks.segmentation.predict import SegmentationResult


def result(mask: list[list[int]], classes: tuple[str, ...] = ("ocean", "land", "lake")) -> SegmentationResult:
    array = np.array(mask, dtype=np.uint8)
    return SegmentationResult(array, classes, np.full((*array.shape, 3), 200, dtype=np.uint8))


def test_shares_are_those_counted_by_hand() -> None:
    assert result([[0, 0, 1, 0]]).to_dict() == {
        "task": "segmentation",
        "size": {"height": 1, "width": 4},
        "shares": {"ocean": 0.75, "land": 0.25, "lake": 0.0},
    }


def test_class_image_reads_back_as_class_ids_and_opens_in_colours() -> None:
    made = result([[0, 1, 2], [2, 1, 0]])
    file = io.BytesIO()
    made.class_image().save(file, "PNG")
    image = Image.open(file)
    assert image.mode == "P"
    assert np.array_equal(np.array(image), made.mask)
    assert np.array_equal(np.array(image.convert("RGB")), palette(3)[made.mask])


@pytest.mark.parametrize("num_classes", [1, 8, 9, 255])
def test_colours_differ(num_classes: int) -> None:
    colours = palette(num_classes)
    assert colours.shape == (num_classes, 3)
    assert len({tuple(colour) for colour in colours.tolist()}) == num_classes


def test_colour_of_a_class_does_not_depend_on_the_others() -> None:
    assert np.array_equal(palette(20)[:5], palette(5))


def test_paint_is_blended_and_outlines_are_not() -> None:
    drawn = np.array(result([[0, 0, 0, 1, 1, 1]]).draw(opacity=0.5, legend=False))
    ocean, land = palette(2).astype(int)
    np.testing.assert_allclose(drawn[0, 0], (ocean + 200) / 2, atol=1)
    np.testing.assert_array_equal(drawn[0, 2], ocean)
    np.testing.assert_array_equal(drawn[0, 3], land)
    np.testing.assert_allclose(drawn[0, 5], (land + 200) / 2, atol=1)


@pytest.mark.parametrize("name", ["background", "Other", "_background_", "unlabelled"])
def test_a_background_stays_as_it_is(name: str) -> None:
    made = result([[0, 0, 0, 1, 1, 1]], (name, "land"))
    drawn = np.array(made.draw(opacity=0.5, legend=False))
    assert (drawn[0, :3] == 200).all()
    assert (drawn[0, 3:] != 200).any(axis=1).all()
    tinted = np.array(made.draw(opacity=0.5, legend=False, tint_background=True))
    assert np.array_equal(tinted, np.array(result([[0, 0, 0, 1, 1, 1]], ("sea", "land")).draw(0.5, legend=False)))


def test_the_legend_alone_is_that_below_the_image() -> None:
    made = result(np.tile([[0, 1, 2]], (50, 100)).tolist())
    assert np.array_equal(np.array(made.legend()), np.array(made.draw())[50:])


def test_a_background_that_is_not_painted_has_no_colour_in_the_legend() -> None:
    made = result(np.tile([[0, 1]], (50, 100)).tolist(), ("background", "land"))
    blue, green = (tuple(colour) for colour in palette(2).tolist())
    for tint, wanted in ((False, {green}), (True, {blue, green})):
        colours = {tuple(colour) for colour in np.array(made.legend(tint_background=tint)).reshape(-1, 3).tolist()}
        assert colours & {blue, green} == wanted


def test_legend_stands_below_the_untouched_image() -> None:
    made = result(np.tile([[0, 1, 2]], (50, 100)).tolist())
    plain, drawn = made.draw(legend=False), made.draw()
    assert drawn.width == 300
    assert drawn.height > 50
    assert np.array_equal(np.array(drawn)[:50], np.array(plain))
    below = {tuple(colour) for colour in np.array(drawn)[50:].reshape(-1, 3).tolist()}
    assert {tuple(colour) for colour in palette(3).tolist()} <= below


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3)])
def test_legend_fits_any_shape(size: tuple[int, int]) -> None:
    mask = np.zeros(size, dtype=np.uint8)
    drawn = SegmentationResult(mask, ("x" * 300,), np.zeros((*size, 3), dtype=np.uint8)).draw()
    assert drawn.width >= size[1]
    assert drawn.height > size[0]


def test_legend_of_many_classes_is_bounded() -> None:
    names = tuple(f"class number {i}" for i in range(200))
    mask = np.arange(200, dtype=np.uint8).reshape(1, 200)
    many = SegmentationResult(mask, names, np.zeros((1, 200, 3), dtype=np.uint8)).draw()
    few = SegmentationResult(mask % MAX_LEGEND, names[:MAX_LEGEND], np.zeros((1, 200, 3), np.uint8)).draw()
    assert many.height <= few.height * 1.5


def test_grey_and_many_channel_images_are_drawn() -> None:
    mask = np.zeros((4, 4), dtype=np.uint8)
    for channels in (1, 2, 3, 4):
        image = np.zeros((4, 4, channels), dtype=np.uint8)
        assert SegmentationResult(mask, ("a",), image).draw(legend=False).size == (4, 4)
