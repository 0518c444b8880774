"""The dense heads: sizes as published, pooling as the library's, and an auxiliary head that only training has."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cyclemlp.errors import ConfigError
from cyclemlp.heads.segmentation import HEADS, SegmentationModel, build_segmentation_model
from cyclemlp.heads.upernet import UperNet, adaptive_average
from cyclemlp.tasks.card import ModelCard, load_model, save_model

# AS-MLP's table of UperNet on ADE20K; CycleMLP's models of that size have the same parameters.
UPERNET_MILLIONS = {"cyclemlp_tiny": 60, "cyclemlp_small": 81, "cyclemlp_base": 121, "asmlp_tiny": 60, "resnet101": 86}

# ActiveMLP's repository, with Semantic FPN and with UperNet and its auxiliary head.
ACTIVE_MILLIONS = {
    "xtiny": (19.1, 45.3),
    "tiny": (30.9, 57.1),
    "small": (42.4, 68.6),
    "base": (55.9, 82.1),
    "large": (79.8, 107.9),
}


def count(model: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


@pytest.mark.parametrize(("name", "millions"), UPERNET_MILLIONS.items())
def test_upernet_has_the_published_parameters(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = build_segmentation_model(name, "upernet", 150, auxiliary=True)
    assert count(model) == pytest.approx(millions, rel=0.01)


# The paper's Table 6.
FPN_MILLIONS = {
    "cyclemlp_b1": 18.9,
    "cyclemlp_b2": 30.6,
    "cyclemlp_b3": 42.1,
    "cyclemlp_b4": 55.6,
    "cyclemlp_b5": 79.4,
}


@pytest.mark.parametrize(("name", "millions"), FPN_MILLIONS.items())
def test_semantic_fpn_has_the_published_parameters(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = build_segmentation_model(name, "semantic-fpn", 150, auxiliary=True)
    assert count(model) == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(("size", "millions"), ACTIVE_MILLIONS.items())
def test_heads_on_activemlp_have_the_published_parameters(size: str, millions: tuple[float, float]) -> None:
    with torch.device("meta"):
        fpn = build_segmentation_model(f"activemlp_{size}", "semantic-fpn", 150)
        upernet = build_segmentation_model(f"activemlp_{size}", "upernet", 150, auxiliary=True)
    assert (round(count(fpn), 1), round(count(upernet), 1)) == millions


@pytest.mark.parametrize("edges", [(1, 1), (2, 5), (6, 6), (7, 13), (16, 16)])
@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_adaptive_average_is_the_librarys(edges: tuple[int, int], size: int) -> None:
    x = torch.randn(2, 3, *edges, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(adaptive_average(x, size), F.adaptive_avg_pool2d(x, size))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("edges", [(32, 32), (50, 97)])
def test_logits_have_the_size_of_the_image(head: str, edges: tuple[int, int]) -> None:
    model = build_segmentation_model("cyclemlp_nano", head, 5, head_width=16).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, *edges)).shape == (1, 5, *edges)


@pytest.fixture(scope="module")
def trained() -> SegmentationModel:
    torch.manual_seed(0)
    return build_segmentation_model("cyclemlp_nano", "upernet", 3, head_width=16, auxiliary=True)


def test_the_auxiliary_head_changes_no_prediction(trained: SegmentationModel) -> None:
    images = torch.randn(2, 3, 40, 33)
    trained.eval()
    with torch.no_grad():
        logits, auxiliary = trained.training_logits(images)
        torch.testing.assert_close(logits, trained(images), rtol=0, atol=0)
    assert auxiliary is not None
    assert auxiliary.shape == logits.shape
    assert isinstance(trained.auxiliary, torch.nn.Module)
    assert trained.auxiliary.convolve[0].out_channels == 8  # type: ignore[index, union-attr]


def test_every_parameter_has_a_gradient(trained: SegmentationModel) -> None:
    trained.train()
    logits, auxiliary = trained.training_logits(torch.randn(2, 3, 64, 64))
    assert auxiliary is not None
    loss = logits.square().mean() + auxiliary.square().mean()
    # Raises for a parameter that the loss does not depend on.
    assert all(grad is not None for grad in torch.autograd.grad(loss, list(trained.parameters())))


def test_a_saved_network_is_without_it(trained: SegmentationModel, tmp_path: Path) -> None:
    card = ModelCard("segmentation", "cyclemlp_nano", "upernet", ("a", "b", "c"), head_width=16)
    save_model(tmp_path, trained, card)
    loaded, found = load_model(tmp_path)
    assert isinstance(loaded, SegmentationModel)
    assert isinstance(loaded.head, UperNet)
    assert loaded.auxiliary is None
    assert found.head == "upernet"
    images = torch.randn(1, 3, 40, 33)
    with torch.no_grad():
        assert torch.equal(loaded(images), trained.eval()(images))


def test_a_misspelt_head_is_named() -> None:
    with pytest.raises(ConfigError, match=r"head 'upernett' is not known; allowed: .* Did you mean 'upernet'"):
        build_segmentation_model("cyclemlp_nano", "upernett", 3)
