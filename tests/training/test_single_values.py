"""Batches of one image whose last map has one position: BatchNorm has a single value per channel."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import nn
from training_runs import train_segmentation

from cyclemlp.data.augmentation import MaskAugmentation
from cyclemlp.tasks.options import Optimisation
from cyclemlp.tasks.segmentation.config import SegmentationConfig
from cyclemlp.training.single_values import allow_single_values


@pytest.mark.parametrize("model", ["cyclemlp_nano", "resnet18"])
def test_a_batch_of_one_with_a_last_map_of_one_position(
    configured: Callable[..., SegmentationConfig], model: str
) -> None:
    config = configured(
        steps=2,
        model=model,
        head_width=8,
        optimisation=Optimisation(batch_size=1),
        augmentation=MaskAugmentation(crop_size=32),
    )
    assert (train_segmentation(config) / "model.safetensors").is_file()


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(3), nn.BatchNorm1d(3)])
def test_one_value_is_normalised_by_the_running_statistics(norm: nn.Module) -> None:
    plain = deepcopy(norm)
    allow_single_values(norm)
    allow_single_values(norm)  # a second call changes nothing
    spatial = (1, 1) if isinstance(norm, nn.BatchNorm2d) else ()
    one, many = torch.randn(1, 3, *spatial), torch.randn(4, 3, *spatial)
    with pytest.raises(ValueError, match="more than 1 value"):
        plain(one)
    for module in (norm, plain):
        module(many)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    seen = norm(one)
    assert norm.training
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert torch.equal(seen, plain.eval()(one))
    seen.sum().backward()
    assert torch.equal(norm(many), plain.train()(many))
    assert norm.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(norm.eval()(one), plain.eval()(one))
    assert not norm.training
