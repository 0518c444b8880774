import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cyclemlp.data.resampling import resize_bilinear


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
