from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cyclemlp.data.resizing import FloatArray
from cyclemlp.inference.tiling import MIN_EDGE, OVERLAP, Tiling, map_strips
from cyclemlp.tasks.segmentation.predict import most_probable_classes

SIZES = [(1, 1), (1, 31), (31, 5), (32, 32), (33, 95), (64, 200), (150, 40), (7, 400)]


def random_image(height: int, width: int, images: int = 1) -> Tensor:
    return torch.randn(images, 3, height, width, generator=torch.Generator().manual_seed(height * width))


def on_arrays(network: Callable[[Tensor], Tensor], windows: FloatArray) -> FloatArray:
    with torch.no_grad():
        logits: FloatArray = network(torch.from_numpy(windows)).numpy()
    return logits


def predict_logits(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    window: int | None = None,
    overlap: int = OVERLAP,
    *,
    input_scale: float = 1.0,
) -> Tensor:
    """All strips of whole images (N, C, H, W), joined: (N, K, H, W)."""
    tiling = Tiling(window, overlap, input_scale)
    strips = map_strips(lambda windows: on_arrays(network, windows), images.numpy(), tiling)
    return torch.from_numpy(np.concatenate(list(strips), axis=2))


class Pointwise(nn.Module):
    """Three classes from three channels, each pixel by itself, recording what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, windows: Tensor) -> Tensor:
        self.shapes.append(tuple(windows.shape))
        assert windows.dtype == torch.float32
        return windows * torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1) + 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [None, 32, 48])
def test_pointwise_network_gives_the_same_in_windows(size: tuple[int, int], window: int | None) -> None:
    images = random_image(*size, images=2)
    torch.testing.assert_close(predict_logits(Pointwise(), images, window), Pointwise()(images))


@pytest.mark.parametrize("overlap", [0, 1, 10, 20, 1000])
def test_blending_weights_add_up_for_every_overlap(overlap: int) -> None:
    images = random_image(101, 67)
    torch.testing.assert_close(predict_logits(Pointwise(), images, 40, overlap), Pointwise()(images))


@pytest.mark.parametrize("overlap", [0, 1, 10, 20])
def test_later_strips_are_the_same_without_the_first_ones(overlap: int) -> None:
    """As an interrupted command resumes; three windows meet where they share half."""
    images, tiling = random_image(101, 67).numpy(), Tiling(40, overlap)
    whole = list(map_strips(lambda windows: on_arrays(Pointwise(), windows), images, tiling))
    for first in range(len(whole)):
        later = map_strips(lambda windows: on_arrays(Pointwise(), windows), images, tiling, first=first)
        for ours, theirs in zip(later, whole[first:], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_one_window_is_bit_equal_to_the_plain_pass() -> None:
    network = nn.Conv2d(3, 4, 5, padding=2).eval()
    images = random_image(50, 70)
    for window in (None, 70, 1000):
        assert torch.equal(predict_logits(network, images, window), network(images))


def test_windows_have_one_size_and_stay_inside() -> None:
    network = Pointwise()
    predict_logits(network, random_image(100, 70), 32)
    assert {shape[2:] for shape in network.shapes} == {(32, 32)}


def test_images_are_independent_of_their_company() -> None:
    network = nn.Conv2d(3, 4, 5, padding=2).eval()
    images = random_image(60, 90, images=3)
    together = predict_logits(network, images, 40)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], predict_logits(network, images[i : i + 1], 40))


def test_padding_of_windows_fades_out() -> None:
    """A network that answers wrongly at its border: blending hides it everywhere but at the image's own."""

    def wrong_at_the_border(windows: Tensor) -> Tensor:
        logits = torch.ones(windows.shape[0], 1, *windows.shape[2:])
        logits[..., 0] = logits[..., -1] = -100
        return logits

    logits = predict_logits(wrong_at_the_border, random_image(40, 200), 40, overlap=20)
    assert logits[..., 1:-1].min() > 0.3


@pytest.mark.parametrize("size", SIZES)
def test_classes_are_the_most_likely_ones(size: tuple[int, int]) -> None:
    images = random_image(*size)
    network = nn.Conv2d(3, 7, 3, padding=1).eval()
    classes = most_probable_classes(map_strips(lambda w: on_arrays(network, w), images.numpy(), Tiling(48)))
    assert classes.dtype == np.uint8
    assert np.array_equal(classes, predict_logits(network, images, 48).argmax(1).numpy())


def test_of_equally_likely_classes_the_first_wins() -> None:
    logits = np.array([1, 3, 3, 2], dtype=np.float32).reshape(1, 4, 1, 1)
    strips = map_strips(lambda windows: logits + 0 * windows[:, :1], np.zeros((1, 1, 40, 40)), Tiling())
    assert most_probable_classes(strips).max() == 1


def test_small_images_reach_the_network_padded() -> None:
    network = Pointwise()
    assert predict_logits(network, random_image(1, 3)).shape == (1, 3, 1, 3)
    assert network.shapes == [(1, 3, MIN_EDGE, MIN_EDGE)]


def test_input_scale_enlarges_windows_and_resizes_back() -> None:
    network = Pointwise()
    # A linear image survives bilinear upscaling and downscaling, but for the half pixel at its border.
    images = torch.linspace(0, 1, 80).expand(1, 3, 60, 80)
    logits = predict_logits(network, images, 64, input_scale=2.0)
    assert {shape[2:] for shape in network.shapes} == {(64, 64)}
    torch.testing.assert_close(logits[..., 1:-1], Pointwise()(images)[..., 1:-1], atol=5e-3, rtol=0)


def test_odd_input_scale_keeps_the_size() -> None:
    assert predict_logits(Pointwise(), random_image(61, 43), 50, input_scale=1.37).shape == (1, 3, 61, 43)


def test_strips_cover_the_image_from_top_to_bottom() -> None:
    network = Pointwise()
    strips = list(map_strips(lambda w: on_arrays(network, w), random_image(100, 40).numpy(), Tiling(32)))
    assert len(strips) > 1
    assert sum(strip.shape[2] for strip in strips) == 100
    assert max(strip.shape[2] for strip in strips) <= 32


def test_whole_number_images_are_given_as_float() -> None:
    images = torch.arange(3 * 40 * 40, dtype=torch.int64).remainder(256).to(torch.uint8).view(1, 3, 40, 40)
    torch.testing.assert_close(predict_logits(Pointwise(), images), Pointwise()(images.float()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 16}, "window 16: allowed are 32 and more"),
        ({"overlap": -1}, "overlap -1: must not be below 0"),
        ({"input_scale": 0.0}, "input_scale 0.0: must be above 0"),
    ],
)
def test_wrong_tilings_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tiling(**options)  # type: ignore[arg-type]  # what a caller might give
