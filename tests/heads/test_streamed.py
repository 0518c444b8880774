"""Networks block by block over windows: the values of the image in one piece, for our backbones and both heads."""

import pytest
import timm
import torch
from small_networks import SMALL
from timm.utils import reparameterize_model
from torch import nn

from cyclemlp.errors import DataError
from cyclemlp.heads.pyramid import PyramidBackbone
from cyclemlp.heads.segmentation import HEADS, SegmentationModel
from cyclemlp.heads.streamed import maps
from cyclemlp.heads.streamed.backbone import UnknownLayerError
from cyclemlp.heads.streamed.maps import Constant, Map, spans
from cyclemlp.heads.streamed.segmentation import logits_map
from cyclemlp.heads.streamed.work import Estimate, Work
from cyclemlp.models.activemlp import Offsets

CPU = torch.device("cpu")
FUSED = ("cyclemlp_nano", "cyclemlp_tiny")
"""Backbones with an inference form of their own."""
TOLERANCE = 1e-5
"""Of the range of the logits: float32 sums in another order differ by some 1e-6 of it."""


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "TILE_VALUES", 2**10)  # 9 windows of 8 x 8 and more for a map at stride 4


def network(backbone: str, head: str, monkeypatch: pytest.MonkeyPatch) -> SegmentationModel:
    """A small network in which every layer matters."""
    module, sizes = SMALL[backbone]
    monkeypatch.setitem(module.SIZES, backbone, sizes)
    torch.manual_seed(0)
    trunk = PyramidBackbone(backbone)
    model = SegmentationModel(trunk, HEADS[head](trunk.channels, 3, 16)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
            else:
                parameter.mul_(3)  # the re-weighting starts near equal shares, whatever the means are
        for norm in (each for each in model.modules() if isinstance(each, nn.BatchNorm2d)):
            assert norm.running_mean is not None
            norm.running_mean.normal_()
    return model


def joined(logits: Map, edge: int = 50) -> torch.Tensor:
    """A map from windows of this edge."""
    rows = [torch.cat([logits.read(row, column) for column in spans(logits.size[1], edge)], -1)
            for row in spans(logits.size[0], edge)]  # fmt: skip
    return torch.cat(rows, -2)


@pytest.mark.parametrize("size", [(64, 96), (67, 109)])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("backbone", "fused"), [*((name, False) for name in SMALL), *((name, True) for name in FUSED)])
@torch.no_grad()
def test_logits_are_those_of_the_image_in_one_piece(
    backbone: str, head: str, size: tuple[int, int], fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(backbone, head, monkeypatch)
    model = reparameterize_model(model) if fused else model
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    whole = model(images)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    done: list[int] = []
    found = joined(logits_map(model, Constant(images), Work(CPU, done.append)))
    assert (found - whole).abs().max() <= TOLERANCE * (whole.max() - whole.min())
    assert torch.equal(model(images), whole)  # the network itself has not changed
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    estimate = Estimate()
    logits_map(model, Constant(images), estimate)
    assert estimate.windows == sum(done)


@torch.no_grad()
def test_far_offsets_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("activemlp_nano", "semantic-fpn", monkeypatch)
    for offsets in (each for each in model.modules() if isinstance(each, Offsets)):
        offsets.linear.weight.mul_(20)
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    whole = model(images)
    found = joined(logits_map(model, Constant(images), Work(CPU, lambda _: None)))
    assert (found - whole).abs().max() <= 10 * TOLERANCE * (whole.max() - whole.min())


@torch.no_grad()
def test_offsets_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("activemlp_nano", "semantic-fpn", monkeypatch)
    next(each for each in model.modules() if isinstance(each, Offsets)).linear.bias.fill_(torch.nan)
    with pytest.raises(DataError, match="not finite"):
        logits_map(model, Constant(torch.zeros(1, 3, 64, 64)), Work(CPU, lambda _: None))


@torch.no_grad()
def test_means_over_windows_would_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above would not pass with means over windows: those of half an image change the logits."""
    model = network("cyclemlp_nano", "semantic-fpn", monkeypatch)
    images = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    images[..., 64:] *= 3
    whole, half = model(images)[..., :16, :16], model(images[..., :64])[..., :16, :16]
    assert (half - whole).abs().max() > 100 * TOLERANCE * (whole.max() - whole.min())


def test_other_backbones_and_networks_are_unknown() -> None:
    trunk = PyramidBackbone("resnet18")
    with pytest.raises(UnknownLayerError, match="FeatureListNet"):
        logits_map(SegmentationModel(trunk, HEADS["upernet"](trunk.channels, 2, 16)), _image(), Estimate())
    with pytest.raises(UnknownLayerError, match="CycleMLP"):
        logits_map(timm.create_model("cyclemlp_nano"), _image(), Estimate())


def test_an_estimate_counts_what_is_on_disk_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outputs of the four stages, and while the first one is computed its input."""
    model, estimate = network("cyclemlp_nano", "semantic-fpn", monkeypatch), Estimate()
    logits_map(model, _image(128), estimate)
    widths = SMALL["cyclemlp_nano"][1].widths
    sheets = [4 * width * (128 // stride) ** 2 for width, stride in zip(widths, (4, 8, 16, 32), strict=True)]
    assert max(sum(sheets), 2 * sheets[0]) <= estimate.peak_bytes <= sum(sheets) + sheets[0]


def _image(edge: int = 64) -> Map:
    return Constant(torch.zeros(1, 3, edge, edge))
