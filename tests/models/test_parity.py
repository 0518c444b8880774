"""Values of the authors' code, from files in the authors' layout.

Double precision: 1e-9 relative, the digits that survive another order of summation in networks this deep.
Single precision: 1e-4 relative in the L2 norm.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import cyclemlp  # noqa: F401  registers the models

pytestmark = pytest.mark.usefixtures("one_thread")
PRINTED = (
    "cyclemlp_b1",
    "cyclemlp_b2",
    "asmlp_tiny",
    "activemlp_xtiny",
    "activemlp_tiny",
)  # models with values in expected.json


def assert_equals_printed(given: Tensor, printed: dict[str, Any], tolerance: float) -> None:
    assert given.numel() == printed["numel"]
    norm = printed["l2"]
    assert abs(given.norm().item() - norm) <= tolerance * norm
    # The sum may cancel, so its error is measured against what the norm allows it to be.
    assert abs(given.sum().item() - printed["sum"]) <= tolerance * norm * given.numel() ** 0.5
    first = torch.tensor(printed["first8"], dtype=given.dtype)
    # printed with ten decimals
    assert (given.flatten()[:8] - first).abs().max().item() <= tolerance * norm / given.numel() ** 0.5 + 1e-10


@pytest.fixture(scope="module", params=PRINTED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def double_model(name: str, authors_file: Callable[[str], Path]) -> nn.Module:
    model: nn.Module = timm.create_model(name, checkpoint_path=authors_file(name))
    return model.double().eval()


def test_logits_features_and_parameters(name: str, double_model: Any, parity: Any) -> None:
    expected = parity.expected[name]
    assert sum(p.numel() for p in double_model.parameters()) == expected["params"]
    sizes = [key.removeprefix("logits_") for key in expected if key.startswith("logits_")]
    assert sizes
    images = {size: parity.image(*map(int, size.split("x"))) for size in sizes}
    exact: dict[str, Tensor] = {}
    for size, image in images.items():
        # What the network's `forward` and its form with `features_only` give, to the bit; see test_suite.py.
        with torch.no_grad():
            last, maps = double_model.forward_intermediates(image.double())
            exact[size] = double_model.forward_head(last)
        assert_equals_printed(exact[size], expected[f"logits_{size}"], 1e-9)
        if f"features_{size}" in expected:
            assert_features_equal_printed(maps, expected[f"features_{size}"])
    assert_rounds_little(double_model, images, exact)


def assert_features_equal_printed(maps: list[Tensor], printed: list[dict[str, Any]]) -> None:
    assert len(maps) == 4
    for given, wanted in zip(maps, printed, strict=True):
        assert list(given.shape) == wanted["shape"]
        assert_equals_printed(given, wanted, 1e-9)


def assert_rounds_little(double_model: nn.Module, images: dict[str, Tensor], exact: dict[str, Tensor]) -> None:
    try:
        single_model = double_model.float()
        with torch.no_grad():
            single = {size: single_model(image) for size, image in images.items()}
    finally:
        double_model.double()  # the weights came from single precision: nothing is lost on the way
    for size, wanted in exact.items():
        assert (single[size].double() - wanted).norm() <= 1e-4 * wanted.norm()


def test_features_were_printed(parity: Any) -> None:
    with_features = {name for name in PRINTED if "features_250x187" in parity.expected[name]}
    assert with_features == set(PRINTED) - {"asmlp_tiny"}
    assert all("logits_250x187" in parity.expected[name] for name in with_features)


def test_input_gradient(name: str, double_model: nn.Module, parity: Any) -> None:
    if "input_grad_64x96" not in parity.expected[name]:
        pytest.skip("no gradient printed for this model")
    image = parity.image(64, 96).double().requires_grad_()
    (gradient,) = torch.autograd.grad(double_model(image).square().sum(), image)
    assert_equals_printed(gradient, parity.expected[name]["input_grad_64x96"], 1e-9)
