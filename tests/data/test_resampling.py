import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cyclemlp.data.resizing import FloatArray, resize_bilinear
from cyclemlp.data.transforms import resize_image
from cyclemlp.inference.tiling import Tiling, map_strips


@pytest.mark.parametrize("given", [(1, 1), (1, 9), (7, 5), (32, 33)])
@pytest.mark.parametrize("wanted", [(1, 1), (3, 4), (14, 10), (64, 66), (33, 7)])
def test_values_are_those_of_torch(given: tuple[int, int], wanted: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, *given)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(maps), wanted, mode="bilinear", align_corners=False).numpy()
    resized = resize_bilinear(maps, *wanted)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, expected, atol=1e-5)  # torch places samples in float32


def test_the_same_size_is_the_same_array() -> None:
    maps = np.zeros((1, 1, 4, 5), dtype=np.float32)
    assert resize_bilinear(maps, 4, 5) is maps


@pytest.mark.parametrize("size", [(12, 7), (5, 60), (40, 20), (3, 3), (41, 61), (1, 1)])
def test_antialiased_values_are_those_of_torch(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, 40, 61, generator=torch.Generator().manual_seed(1))
    ours = resize_bilinear(maps.numpy(), *size, antialias=True)
    theirs = F.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(torch.from_numpy(ours), theirs, atol=1e-5, rtol=1e-5)


def test_images_are_downscaled_alike_in_training_and_in_prediction() -> None:
    """Noise downscaled four times loses most of its contrast; read between two pixels it would keep it."""
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    training = resize_image(image, (32, 32)).float().numpy()
    seen: list[FloatArray] = []

    def network(windows: FloatArray) -> FloatArray:
        seen.append(windows)
        return windows

    list(map_strips(network, image.numpy()[None], Tiling(input_scale=0.25)))
    np.testing.assert_allclose(seen[0][0], training, atol=1.01)  # training rounds to whole values
    assert seen[0].std() == pytest.approx(training.std(), rel=0.02)
