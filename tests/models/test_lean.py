"""Lean training: the values and all gradients of plain autograd, with less kept."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from cyclemlp.models import CycleMixer
from cyclemlp.models.cyclemlp import CycleMLP, CycleMLPSizes
from cyclemlp.models.forms.lean import LeanMlp, shifted_means, weighted_branches
from cyclemlp.ops import cycle_fc

SIZES = [(2, 4, 5), (1, 1, 1), (2, 1, 3), (1, 6, 2)]


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def branch_tensors(channels: int) -> list[Tensor]:
    square = (channels, channels)
    return [drawn(*square), drawn(channels), drawn(*square), drawn(channels), drawn(*square)]


def lean(step: int, *tensors: Tensor) -> Tensor:
    x, weights, wh, bh, ww, bw, wc = tensors
    return weighted_branches(x, weights, (wh, bh), (ww, bw), wc, step)


def plain(step: int, *tensors: Tensor) -> Tensor:
    x, weights, wh, bh, ww, bw, wc = tensors
    branches = cycle_fc(x, wh, bh, (1, step)), cycle_fc(x, ww, bw, (step, 1)), F.linear(x, wc)
    return torch.stack([each * weights[:, k, None, None] for k, each in enumerate(branches)]).sum(0)


@pytest.mark.parametrize(("size", "step"), list(itertools.product(SIZES, (3, 5))))
def test_weighted_branches_equal_the_branches(size: tuple[int, int, int], step: int) -> None:
    inputs = [drawn(*size, 7), drawn(size[0], 3, 7), *branch_tensors(7)]
    found, wanted = lean(step, *inputs), plain(step, *inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(found)
    gradients = (torch.autograd.grad(each, inputs, upstream) for each in (found, wanted))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_weighted_branches_pass_gradcheck_twice() -> None:
    inputs = [drawn(2, 2, 3, 4), drawn(2, 3, 4), *branch_tensors(4)]

    def function(*tensors: Tensor) -> Tensor:
        return lean(3, *tensors)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize(("size", "step"), list(itertools.product(SIZES, (3, 5))))
def test_shifted_means(size: tuple[int, int, int], step: int) -> None:
    x, eye = drawn(*size, 7), torch.eye(7, dtype=torch.float64)
    wanted = torch.stack([cycle_fc(x, eye, None, s).mean((1, 2)) for s in ((1, step), (step, 1), (1, 1))], 1)
    torch.testing.assert_close(shifted_means(x, step), wanted, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: shifted_means(x, step), [x])
    assert torch.autograd.gradgradcheck(lambda x: shifted_means(x, step), [x])


def test_mlp_equals_timms() -> None:
    ours = LeanMlp(6, 12).double()
    theirs = Mlp(6, 12).double()
    theirs.load_state_dict(ours.state_dict())
    x = drawn(2, 3, 6)
    results = []
    for mlp in (ours, theirs):
        out = mlp(x)
        results.append([out, *torch.autograd.grad(out.sin().sum(), [x, *mlp.parameters()])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradgradcheck(lambda x: ours(x), [x])


def small_model() -> CycleMLP:
    return CycleMLP(CycleMLPSizes((12, 16, 24, 32), (1, 1, 1, 1)), num_classes=3)


def gradients(model: nn.Module, images: Tensor) -> list[Tensor]:
    model.zero_grad()
    model(images).square().sum().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def without_lean(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> Any:
    with monkeypatch.context() as patch:
        for module in ("cyclemlp.models.cyclemlp", "cyclemlp.models.forms.lean"):
            patch.setattr(f"{module}.pays", lambda _: False)
        return run()


def test_all_gradients_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = small_model().double(), torch.randn(2, 3, 64, 96, dtype=torch.float64)
    wanted = without_lean(monkeypatch, lambda: gradients(model, images))
    for checkpointing in (False, True):
        model.set_grad_checkpointing(checkpointing)
        for a, b in zip(gradients(model, images), wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def kept_bytes(model: nn.Module, images: Tensor) -> int:
    """What autograd keeps of a forward pass, parameters apart."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(images)
    return sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in parameters)


def test_less_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = small_model(), torch.randn(2, 3, 128, 128)
    plainly = without_lean(monkeypatch, lambda: kept_bytes(model, images))
    leanly = kept_bytes(model, images)
    assert leanly <= 0.7 * plainly  # in a block 9 maps of its size instead of 16
    model.set_grad_checkpointing()
    assert kept_bytes(model, images) <= 0.4 * leanly  # of which the images are half


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_near_gradients_in_the_weights_type(dtype: torch.dtype) -> None:
    mixer = CycleMixer(12)
    x = torch.randn(2, 6, 6, 12)
    mixer(x).square().mean().backward()
    wanted = [parameter.grad.clone() for parameter in mixer.parameters() if parameter.grad is not None]
    mixer.zero_grad()
    with torch.autocast("cpu", dtype):
        loss = mixer(x).float().square().mean()
    loss.backward()
    for parameter, gradient in zip(mixer.parameters(), wanted, strict=True):
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert (parameter.grad - gradient).abs().max() <= 0.05 * gradient.abs().max()
