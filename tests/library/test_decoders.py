"""Decoders and detectors of other libraries on our backbones."""

from typing import Any

import pytest
import torch
from small_networks import create, images
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork

DECODERS = ["unet", "fpn", "upernet", "segformer", "deeplabv3", "deeplabv3plus"]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.filterwarnings("ignore")
def test_decoders_of_segmentation_models_pytorch(name: str, decoder: str) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch", reason="segmentation_models_pytorch is not installed")
    model = smp.create_model(decoder, f"tu-{name}", encoder_weights=None, classes=3, in_channels=4)
    logits = model(torch.randn(2, 4, 64, 96))
    assert logits.shape == (2, 3, 64, 96)
    logits.mean().backward()


class Pyramid(torch.nn.Module):
    """What torchvision's detectors ask of a backbone: named maps, and their number of channels."""

    out_channels = 16

    def __init__(self, name: str) -> None:
        super().__init__()
        self.body: Any = create(name, features_only=True, out_indices=(1, 2, 3))
        self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), self.out_channels)

    def forward(self, x: torch.Tensor) -> Any:
        return self.fpn({str(k): each for k, each in enumerate(self.body(x))})


def test_a_detector_of_torchvision(name: str) -> None:
    anchors = AnchorGenerator(((16,), (32,), (64,)), ((1.0,),) * 3)
    detector = RetinaNet(Pyramid(name), num_classes=2, anchor_generator=anchors, min_size=64, max_size=96)
    boxes = torch.tensor([[4.0, 4.0, 40.0, 40.0]])
    target = {"boxes": boxes, "labels": torch.tensor([1])}
    losses = detector.train()([*images(1, 64, 96)], [target])
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in detector.parameters())
    (found,) = detector.eval()([*images(1, 64, 96)])
    assert found["boxes"].shape[1] == 4


@pytest.mark.filterwarnings("ignore")
def test_the_backbone_of_transformers(name: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.TimmBackboneConfig(backbone=name, use_pretrained_backbone=False, out_indices=(0, 1, 2, 3))
    backbone = transformers.TimmBackbone(config)
    maps = backbone(images(1, 64, 96)).feature_maps
    assert [tuple(each.shape[2:]) for each in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
