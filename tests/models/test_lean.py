"""Lean training: the values and all gradients of plain autograd, with less kept."""

import copy
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

import cyclemlp
from cyclemlp.models import CycleMixer
from cyclemlp.models.cyclemlp import CycleBlock, CycleMLP, CycleMLPSizes
from cyclemlp.models.forms.lean import LeanMixer, LeanMlp, lean_, plain_, shifted_means, weighted_branches
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
    return weighted_branches(tensors[0], tensors[1], tensors[2:], step)


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


def test_all_gradients_of_a_model() -> None:
    model, images = small_model().double(), torch.randn(2, 3, 64, 96, dtype=torch.float64)
    wanted = gradients(model, images)
    lean_(model)
    for checkpointing in (False, True):
        model.set_grad_checkpointing(checkpointing)
        for a, b in zip(gradients(model, images), wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_the_lean_form_is_put_on_and_taken_off() -> None:
    model, images = small_model(), torch.randn(1, 3, 64, 64)
    keys = list(model.state_dict())
    assert count(model, LeanMixer) == count(model, LeanMlp) == 0
    before = gradients(model, images)
    assert lean_(model) is model
    assert count(model, LeanMixer) == count(model, LeanMlp) == 4
    assert list(model.state_dict()) == keys
    assert count(copy.deepcopy(model), LeanMixer) == 4
    assert plain_(model) is model
    assert count(model, LeanMixer) == count(model, LeanMlp) == 0
    for a, b in zip(gradients(model, images), before, strict=True):
        assert torch.equal(a, b)
    assert (cyclemlp.lean_, cyclemlp.plain_) == (lean_, plain_)


def count(model: nn.Module, layer: type[nn.Module]) -> int:
    return sum(isinstance(module, layer) for module in model.modules())


@pytest.mark.parametrize("training", [True, False])
def test_in_the_plain_form_every_layer_is_called(training: bool) -> None:
    model, called = small_model().train(training), set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    model(torch.randn(1, 3, 64, 64)).sum().backward()
    containers = {name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    assert called == {name for name, _ in model.named_modules()} - containers
    assert {f"stages.0.blocks.0.{each}" for each in ("channel_mlp.fc2", "token_mixer.along_width")} <= called


def test_layers_that_someone_replaced_are_called() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model, images = small_model().double(), torch.randn(1, 3, 64, 64, dtype=torch.float64)
    block: Any = next(module for module in model.modules() if isinstance(module, CycleBlock))
    block.channel_mlp.fc2.__class__ = block.token_mixer.along_channels.__class__ = Doubled
    wanted = gradients(model, images)
    for a, b in zip(gradients(lean_(model), images), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch calls its tracer deprecated
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # checks of channels, which are constant
def test_the_plain_form_can_be_traced_for_any_size() -> None:
    model = small_model().eval()
    traced = torch.jit.trace(model, torch.randn(1, 3, 64, 64))  # type: ignore[no-untyped-call]
    for size in ((1, 3, 64, 64), (2, 3, 97, 65)):
        images = torch.randn(size)
        torch.testing.assert_close(traced(images), model(images), rtol=1e-5, atol=1e-5)


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


def test_less_is_kept() -> None:
    model, images = small_model(), torch.randn(2, 3, 128, 128)
    plainly = kept_bytes(model, images)
    leanly = kept_bytes(lean_(model), images)
    assert leanly <= 0.7 * plainly  # in a block 9 maps of its size instead of 16
    model.set_grad_checkpointing()
    assert kept_bytes(model, images) <= 0.4 * leanly  # of which the images are half


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_near_gradients_in_the_weights_type(dtype: torch.dtype) -> None:
    mixer = lean_(CycleMixer(12))
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
