"""RoIAlign as a weighted lookup, against torchvision's kernel: values, gradients and what lies at the border."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from cyclemlp.heads.torchvision_internals import RegionPooling

STRIDES, SIZE = (4, 8, 16, 32), (96, 160)
COUNTS = (17, 0, 40)
"""Regions of each image."""


def maps_of(dtype: torch.dtype = torch.float32, *, channels_last: bool = False) -> dict[str, Tensor]:
    torch.manual_seed(0)
    found = {
        str(level): torch.randn(len(COUNTS), 5, SIZE[0] // stride, SIZE[1] // stride).to(dtype)
        for level, stride in enumerate(STRIDES)
    }
    if channels_last:
        found = {name: each.contiguous(memory_format=torch.channels_last) for name, each in found.items()}
    return {name: each.requires_grad_() for name, each in found.items()}


def regions_of() -> list[Tensor]:
    """Of all sizes; some reach over the border, some lie outside, some have no area."""
    draw = torch.Generator().manual_seed(1)
    found = []
    for count in COUNTS:
        corners = torch.tensor([200.0, 140.0]) * torch.rand((count, 2), generator=draw) - 20
        sizes = 2 ** (9 * torch.rand((count, 2), generator=draw)) - 1
        found.append(torch.cat([corners, corners + sizes], dim=1))
    return found


def theirs(maps: dict[str, Tensor], regions: list[Tensor], edge: int) -> Tensor:
    pooling = MultiScaleRoIAlign([*maps], edge, sampling_ratio=2)
    mine = RegionPooling(STRIDES, edge)
    pooling.scales, pooling.map_levels = mine.scales, mine.map_levels
    found: Tensor = pooling(maps, regions, [SIZE] * len(regions))
    return found


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("edge", [7, 14])
def test_values_and_gradients_are_torchvisions(edge: int, channels_last: bool) -> None:
    regions, weight = regions_of(), torch.randn(sum(COUNTS), 5, edge, edge)
    results = []
    for pool in (RegionPooling(STRIDES, edge), lambda maps, boxes, _: theirs(maps, boxes, edge)):
        maps = maps_of(channels_last=channels_last)
        found = pool(maps, regions, [SIZE] * len(COUNTS))
        (found * weight).sum().backward()
        results.append((found.detach(), *(each.grad for each in maps.values())))
    for ours, other in zip(*results, strict=True):
        assert ours is not None
        assert ours.abs().sum() > 0
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-4)


def test_no_regions() -> None:
    found = RegionPooling(STRIDES, 7)(maps_of(), [torch.zeros(0, 4)] * len(COUNTS), [SIZE] * len(COUNTS))
    assert found.shape == (0, 5, 7, 7)
    found.sum().backward()


def test_bfloat16_maps_are_summed_in_float32() -> None:
    regions = regions_of()
    plain = RegionPooling(STRIDES, 7)(
        {name: each.float() for name, each in maps_of(torch.bfloat16).items()}, regions, []
    )
    half = RegionPooling(STRIDES, 7)(maps_of(torch.bfloat16), regions, [])
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, plain.to(torch.bfloat16), rtol=0, atol=0)
