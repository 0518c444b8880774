from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclemlp.data.augmentation import MaskAugmentation
from cyclemlp.data.mask_transforms import MaskTrainTransform, drawn_scale
from cyclemlp.data.resizing import ResizeRule
from cyclemlp.data.transforms import Normalisation
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.classification.predict import classify

PLAIN = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def geometry(
    crop_size: int = 32,
    scale: tuple[float, float] = (0.5, 2.0),
    flip: float = 0.5,
    vertical_flip: float = 0.5,
    rare_class_crops: float = 0.0,
) -> MaskTrainTransform:
    """A transform that does not change colours."""
    augmentation = MaskAugmentation(
        crop_size=crop_size,
        scale=scale,
        flip=flip,
        vertical_flip=vertical_flip,
        brightness=0,
        contrast=0,
        saturation=0,
        rare_class_crops=rare_class_crops,
    )
    return MaskTrainTransform(augmentation, PLAIN)


def ramp(height: int, width: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask that both say at every pixel which row (axis 0) or column (axis 1) it is."""
    numbers = np.indices((height, width), np.uint8)[axis]
    return numbers[..., None].repeat(3, axis=2), numbers


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    axis=st.integers(0, 1),
    crop=st.integers(32, 80),
    low=st.floats(0.4, 1.0),
    high=st.floats(1.0, 3.0),
    rare=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_image_and_mask_stay_aligned(
    height: int, width: int, axis: int, crop: int, low: float, high: float, rare: float, seed: int
) -> None:
    torch.manual_seed(seed)
    image, mask = geometry(crop, (low, high), rare_class_crops=rare)(*ramp(height, width, axis))
    assert (image.shape, image.dtype) == ((3, crop, crop), torch.float32)
    assert (mask.shape, mask.dtype) == ((crop, crop), torch.int64)
    kept = mask != 255
    assert kept.any()
    assert (image[:, ~kept] == 0).all()  # padding is the mean colour, and ignored
    error = (image[0] * 255 - mask)[kept].abs().max()
    # Half a pixel each for rounding to a pixel and to uint8; at borders the antialiasing filter is one-sided.
    assert error <= 1 + 0.25 / low


def test_mask_is_sampled_at_the_middle_of_each_pixel() -> None:
    """Reduced by three, every sample is the middle one of three rows; torch's plain "nearest" takes the first."""
    image, mask = geometry(32, (1 / 3, 1 / 3), flip=0, vertical_flip=0)(*ramp(96, 96, 0))
    assert mask[:, 0].tolist() == list(range(1, 96, 3))
    torch.testing.assert_close(image[0, 1:-1] * 255, mask[1:-1].float())


def test_unscaled_sample_is_an_exact_cut() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3), np.uint8)
    mask = rng.integers(0, 255, (40, 50), np.uint8)
    for seed in range(10):
        torch.manual_seed(seed)
        cut, numbers = geometry(32, (1.0, 1.0), flip=0, vertical_flip=0)(image, mask)
        [[top, left]] = [
            [row, column]
            for row, column in np.ndindex(9, 19)
            if (mask[row : row + 32, column : column + 32] == numbers.numpy()).all()
        ]
        expected = torch.from_numpy(image[top : top + 32, left : left + 32]).permute(2, 0, 1) / 255
        torch.testing.assert_close(cut, expected)


def test_small_image_lies_entirely_in_the_sample() -> None:
    image, mask = ramp(20, 10, 0)
    starts = set()
    for seed in range(40):
        torch.manual_seed(seed)
        _, numbers = geometry(32, (1.0, 1.0), flip=0, vertical_flip=0)(image, mask)
        rows, columns = (numbers != 255).nonzero(as_tuple=True)
        assert len(rows) == 200
        starts.add((int(rows.min()), int(columns.min())))
    assert len(starts) > 20  # anywhere in it, not always in a corner


@pytest.mark.parametrize(("flip", "vertical"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_flips_turn_image_and_mask(flip: float, vertical: float) -> None:
    image, mask = ramp(32, 32, 0)
    mask = mask + np.arange(32, dtype=np.uint8) * 4
    image = mask[..., None].repeat(3, axis=2)
    got, numbers = geometry(32, (1.0, 1.0), flip, vertical)(image, mask)
    axes = ((1,) if flip else ()) + ((0,) if vertical else ())
    np.testing.assert_array_equal(numbers.numpy(), np.flip(mask, axes))
    np.testing.assert_allclose(got[0].numpy() * 255, np.flip(mask, axes), atol=1e-4)


def test_rare_class_crops_show_the_rare_class() -> None:
    mask = np.full((400, 400), 255, np.uint8)
    mask[300, 17] = 5
    mask[100:103, 200:203] = 0  # nine pixels, so it is drawn a third as often
    image = np.zeros((400, 400, 3), np.uint8)
    transform = geometry(32, (1.0, 1.0), rare_class_crops=1.0)
    shares, places = 0, set()
    for seed in range(200):
        torch.manual_seed(seed)
        numbers = transform(image, mask)[1]
        if (numbers == 5).any():
            shares += 1
            places.add(tuple((numbers == 5).nonzero()[0].tolist()))
    assert 129 <= shares <= 171  # 3/4 of 200: 150 expected, 3.5 standard deviations
    assert len(places) > 50  # not always at the same place of the sample


def test_wholly_ignored_mask_can_be_cropped() -> None:
    mask = np.full((64, 64), 255, np.uint8)
    _, numbers = geometry(rare_class_crops=1.0)(np.zeros((64, 64, 3), np.uint8), mask)
    assert (numbers == 255).all()


def test_arrays_in_any_order_of_memory_give_the_same() -> None:
    image, mask = ramp(60, 70, 1)
    torch.manual_seed(3)
    by_rows = MaskTrainTransform(MaskAugmentation())(image, mask)
    torch.manual_seed(3)
    by_columns = MaskTrainTransform(MaskAugmentation())(np.asfortranarray(image), np.asfortranarray(mask))
    for one, other in zip(by_rows, by_columns, strict=True):
        assert type(one) is type(other) is torch.Tensor
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    np.testing.assert_array_equal(image, ramp(60, 70, 1)[0])  # the input is left alone


def coloured(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 4), np.uint8)
    torch.manual_seed(seed)
    augmentation = MaskAugmentation(crop_size=48, vertical_flip=0.5, hue=0.1, rare_class_crops=0.5)
    return MaskTrainTransform(augmentation)(pixels[..., :3], pixels[..., 3] % 4)


def test_same_seed_same_sample_whatever_the_other_generators_say() -> None:
    first = coloured(7)
    np.random.seed(1)  # noqa: NPY002 (the legacy generator is what a worker might have seeded)
    second, other = coloured(7), coloured(8)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_colours_stay_in_range_and_leave_the_mask() -> None:
    image, mask = ramp(64, 64, 0)
    strong = MaskAugmentation(32, (1.0, 1.0), flip=0.0, brightness=0.99, contrast=0.99, saturation=0.99, hue=0.5)
    for seed in range(20):
        torch.manual_seed(seed)
        pixels, numbers = MaskTrainTransform(strong, PLAIN)(image * 4, mask)
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        assert (numbers.diff(dim=0) == 1).all()


def test_normalise_follows_the_formula() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    normalisation = Normalisation()
    result = normalisation(torch.from_numpy(image).permute(2, 0, 1) / 255)
    expected = (image / 255 - normalisation.mean) / normalisation.std
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected.transpose(2, 0, 1), rtol=1e-5, atol=1e-6)  # float32


def test_training_and_prediction_normalise_alike() -> None:
    image, mask = ramp(32, 32, 0)
    quiet = MaskAugmentation(32, (1.0, 1.0), flip=0, brightness=0, contrast=0, saturation=0)
    trained, _ = MaskTrainTransform(quiet)(image, mask)
    card = ModelCard("classification", "cyclemlp_nano", "linear", ("a", "b"), image_size=32, crop_pct=1.0)
    through_network = Mock(card=card, pixels=image)
    through_network.run.return_value = (np.zeros((1, 2), np.float32),)
    classify(through_network)
    (seen,) = through_network.run.call_args.args[0]
    torch.testing.assert_close(trained, torch.from_numpy(seen), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": 16}, "--crop-size 16 is too small: 32 or more"),
        ({"scale": (2.0, 0.5)}, "--scale 2.0 0.5: two factors above 0, smaller first"),
        ({"scale": (0.0, 1.0)}, "--scale 0.0 1.0: two factors above 0"),
        ({"flip": 1.5}, "--flip 1.5 is not allowed: from 0 to 1"),
        ({"vertical_flip": -0.1}, "--vertical-flip -0.1 is not allowed: from 0 to 1"),
        ({"rare_class_crops": 2.0}, "--rare-class-crops 2.0 is not allowed: from 0 to 1"),
        ({"hue": 0.6}, "--hue 0.6 is not allowed: from 0 to 0.5"),
        ({"brightness": float("nan")}, "--brightness nan is not allowed: from 0 below 1"),
    ],
)
def test_senseless_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        MaskAugmentation(**options)  # type: ignore[arg-type]


def test_crops_that_one_class_fills_are_drawn_again() -> None:
    """Half of the image is one class alone, the other half a checker of two."""
    mask = np.zeros((64, 256), np.uint8)
    mask[:, 128:] = np.indices((64, 128)).sum(0) % 2
    image = np.zeros((64, 256, 3), np.uint8)
    options = MaskAugmentation(crop_size=32, scale=(1.0, 1.0), largest_class=0.75)
    torch.manual_seed(0)
    filled = 0
    for _ in range(50):
        _, cut = MaskTrainTransform(options, PLAIN)(image, mask)
        filled += int((cut == 0).float().mean() >= 0.75)
    assert filled <= 1  # of eleven draws one is nearly always varied


def test_an_even_draw_of_the_scale_is_seldom_below_one() -> None:
    options = MaskAugmentation(scale=(0.5, 2.0), scale_draw="uniform")
    torch.manual_seed(0)
    drawn = [drawn_scale(options) for _ in range(300)]
    assert 0.25 < np.mean(np.array(drawn) < 1) < 0.42  # a third, where a logarithmic draw has a half


def test_each_colour_change_may_stay_away() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    colours = MaskAugmentation(crop_size=32, scale=(1.0, 1.0), flip=0, hue=0.05, colour_probability=0)
    cut, _ = MaskTrainTransform(colours, PLAIN)(image, mask)
    torch.testing.assert_close(cut, torch.from_numpy(image).permute(2, 0, 1) / 255)


def test_images_are_resized_first() -> None:
    """With the shorter edge at 32 a crop of 32 holds all rows of an image of any size."""
    options = MaskAugmentation(crop_size=32, scale=(1.0, 1.0), flip=0)
    image, rows = ramp(64, 96, 0)
    _, cut = MaskTrainTransform(options, PLAIN, ResizeRule(short_side=32))(image, rows)
    assert cut[:, 0].tolist() == list(range(1, 64, 2))
