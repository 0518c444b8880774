"""The form in which Mask R-CNN is exported has the objects of the network, and what has others is refused."""

from typing import Any

import numpy as np
import pytest
import torch

from cyclemlp.errors import ConfigError
from cyclemlp.export.program import raw_network
from cyclemlp.export.verify_objects import check_objects
from cyclemlp.heads.decoded_mask_rcnn import OBJECT_NAMES
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.tasks.card import ModelCard, build_model

CARD = ModelCard(
    "instance-segmentation",
    "test_resnet",
    "mask-rcnn",
    ("cell", "speck"),
    head_width=16,
    detection=DetectionHead(head_convs=1, head_norm="group", score_threshold=0.3, candidates=90, detections=40),
)
SIZES = ((64, 64), (20, 150), (97, 131), (40, 33), (320, 256))


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model(CARD).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def outputs(model: torch.nn.Module, size: tuple[int, int]) -> tuple[torch.Tensor, dict[str, np.ndarray[Any, Any]]]:
    """An image, and the outputs of the exported form by name."""
    raw = raw_network(model, CARD)
    images = raw.example(1, *size)
    with torch.no_grad():
        given = raw.module(images)
    return images, {name: each.numpy() for name, each in zip(raw.facts.outputs, given, strict=True)}


@pytest.mark.parametrize("size", SIZES)
def test_the_objects_are_those_of_the_network(model: torch.nn.Module, size: tuple[int, int]) -> None:
    images, found = outputs(model, size)
    assert images.shape == (1, 3, *size)
    with torch.no_grad():
        wanted = dict(zip(OBJECT_NAMES, model(images), strict=True))
    assert len(found["scores"]) > 5
    for name, each in wanted.items():
        np.testing.assert_allclose(found[name], each.numpy(), rtol=1e-4, atol=1e-3)
    check_objects(model, CARD, found, size)


@pytest.mark.parametrize(
    ("name", "change"), [("boxes", 1.0), ("scores", 0.01), ("labels", 1), ("masks", 0.01), ("regions", 1.0)]
)
def test_other_objects_are_refused(model: torch.nn.Module, name: str, change: float) -> None:
    _, found = outputs(model, (96, 64))
    check_objects(model, CARD, found, (96, 64))
    changed = found[name].copy()
    changed[0] = (changed[0] + change) % 2 if name == "labels" else changed[0] + change
    with pytest.raises(ConfigError, match="finds other objects than its raw outputs say, for 96 x 64: nothing was wr"):
        check_objects(model, CARD, {**found, name: changed}, (96, 64))
