"""Segmentation averaged over scales and flips is the mean of what each view gives by itself."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from predictions import segmented
from torch import Tensor, nn

from cyclemlp.data.resizing import FloatArray
from cyclemlp.errors import ConfigError
from cyclemlp.heads.network import SizeRule
from cyclemlp.inference import network_image
from cyclemlp.inference.network_image import MAP_WINDOWS, WindowRule, tiling_for
from cyclemlp.inference.predictor import Predictor
from cyclemlp.inference.views import Views, mean_of_views
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.segmentation.predict import softmax

CARD = ModelCard("segmentation", "cyclemlp_nano", "semantic-fpn", classes=tuple("abcd"))
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


class Uneven(nn.Module):
    """Sees left and right, and near and far, differently; so every view has its own opinion."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.layer = nn.Conv2d(3, 4, (3, 5), padding=(1, 2))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = 2 * self.layer(images)
        return logits


@pytest.fixture
def predictor() -> Predictor:
    return Predictor.of_model(Uneven(), CARD, device="cpu")


def random_image(height: int = 90, width: int = 70) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mask_of(predictor: Predictor) -> npt.NDArray[np.uint8]:
    return segmented(predictor.predict(random_image())).mask


@torch.no_grad()
def by_hand(pixels: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]], card: ModelCard, views: Views) -> Tensor:
    """Mean probabilities (K, H, W) with torch's own resizing, view by view."""
    network, size = Uneven(), pixels.shape[:2]
    mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (card.mean, card.std))
    image = ((torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std)[None]
    total = torch.zeros(4, *size)
    for scale in views.scales:
        for flipped in (False, True) if views.flip else (False,):
            edges = [round(edge * card.input_scale * scale) for edge in size]
            seen = F.interpolate(image, edges, mode="bilinear", align_corners=False, antialias=True)
            logits = network(seen.flip(-1) if flipped else seen)
            logits = F.interpolate(logits.flip(-1) if flipped else logits, size, mode="bilinear", align_corners=False)
            total += logits[0].softmax(0)
    return total / len(list(views))


@pytest.mark.parametrize(
    "views",
    [Views(flip=True), Views((0.5,)), Views((1.0, 2.0)), Views(SCALES, flip=True), Views((1.5, 0.5, 1.0))],
    ids=str,
)
@pytest.mark.parametrize("input_scale", [1.0, 2.0])
def test_is_the_mean_of_the_views(predictor: Predictor, views: Views, input_scale: float) -> None:
    card = replace(CARD, input_scale=input_scale)
    expected = by_hand(random_image(), card, views)
    found = mask_of(predictor.described_as(card).with_views(views.scales, flip=views.flip))
    best = expected.topk(2, dim=0).values
    clear = (best[0] - best[1] > 1e-5).numpy()  # elsewhere rounding decides
    assert clear.mean() > 0.99
    assert np.array_equal(found[clear], expected.argmax(0).numpy()[clear])


def test_one_view_as_it_is_changes_nothing(predictor: Predictor) -> None:
    assert np.array_equal(mask_of(predictor.with_views((1.0,))), mask_of(predictor))


def test_views_matter(predictor: Predictor) -> None:
    plain = mask_of(predictor)
    assert (mask_of(predictor.with_views(flip=True)) != plain).mean() > 0.01
    assert (mask_of(predictor.with_views((1.0, 1.5))) != plain).mean() > 0.01


def test_in_windows_views_are_the_same_for_a_network_of_single_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pixelwise(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images * torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1)

    card = replace(CARD, classes=tuple("abc"))
    # A gradient, since a window resizes its border without knowing what lies beyond.
    rows, columns = np.mgrid[:200, :80]
    pixels = np.stack([rows, 255 - rows, columns * 3], axis=-1).astype(np.uint8)
    whole = Predictor.of_model(Pixelwise(), card, device="cpu").with_views((0.5, 1.0, 2.0), flip=True)
    expected = segmented(whole.predict(pixels)).mask
    windowed = segmented(whole.described_as(replace(card, window=48)).predict(pixels)).mask
    assert (windowed == expected).mean() > 0.99


def test_a_view_is_whole_only_where_the_image_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_image, "MAX_WHOLE_PIXELS", 100 * 100)
    assert tiling_for(CARD, (100, 100), 0.5, MAP_WINDOWS).window is None
    assert tiling_for(CARD, (120, 100), 0.5, MAP_WINDOWS).window == MAP_WINDOWS.window
    assert tiling_for(CARD, (80, 80), 1.5, MAP_WINDOWS).window == MAP_WINDOWS.window
    assert tiling_for(CARD, (80, 80), 1.5, MAP_WINDOWS).input_scale == 1.5


def strips_of(logits: FloatArray, heights: list[int]) -> Iterator[FloatArray]:
    """Made when asked for, as a network makes them."""
    start = 0
    for height in heights:
        yield logits[:, :, start : start + height].copy()
        start += height
    assert start == logits.shape[2]


@pytest.mark.parametrize("heights", [[[5, 5], [10]], [[10], [1] * 10], [[4, 3, 3], [2, 7, 1], [9, 1]]])
def test_strips_of_any_heights_are_averaged_row_by_row(heights: list[list[int]]) -> None:
    random = np.random.default_rng(0)
    logits = [random.normal(size=(2, 3, 10, 4)).astype(np.float32) for _ in heights]
    expected = np.mean([torch.from_numpy(each).softmax(1).numpy() for each in logits], axis=0)
    strips = list(mean_of_views([strips_of(*pair) for pair in zip(logits, heights, strict=True)], softmax))
    assert [strip.shape[2] for strip in strips] == heights[0]
    np.testing.assert_allclose(np.concatenate(strips, axis=2), expected, rtol=1e-5)


class Shifted:
    """A network of few operations, in numpy."""

    size_rule = SizeRule(1)

    def __call__(self, images: FloatArray) -> tuple[FloatArray, ...]:
        return (np.repeat(images, 4, axis=1),)


def test_memory_does_not_grow_with_the_height(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_image, "MAX_WHOLE_PIXELS", 0)
    monkeypatch.setattr(network_image, "MAP_WINDOWS", WindowRule(64, 64))
    predictor = Predictor(Shifted(), replace(CARD, classes=tuple("abcdefghijkl"))).with_views((0.5, 1.0), flip=True)
    peaks = []
    for height in (1000, 4000):
        pixels = random_image(height, 128)
        tracemalloc.start()
        predictor.predict(pixels)
        peaks.append(tracemalloc.get_traced_memory()[1] - 2 * pixels.nbytes)  # the mask, and the image channels first
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize(
    ("scales", "given"), [((), ""), ((0.0, 1.0), "0 1"), ((1.0, 1.0), "1 1"), ((9.0,), "9"), ((float("nan"),), "nan")]
)
def test_wrong_scales_are_refused(predictor: Predictor, scales: tuple[float, ...], given: str) -> None:
    with pytest.raises(ConfigError, match=rf"--scales {given}: different factors from 0.1 to 8, such as 0.5 0.75 1"):
        predictor.with_views(scales)


def test_classifiers_have_one_view() -> None:
    card = ModelCard("classification", "resnet18", "linear", classes=("a", "b"), image_size=32, crop_pct=1.0)
    with pytest.raises(ConfigError, match="several scales or flips are not for classification models: leave them out"):
        Predictor(Shifted(), card).with_views(flip=True)
