"""Tools that look into a network find every layer: hooks, Grad-CAM, wrappers, parametrizations, FLOP counters."""

from typing import Any

import pytest
import torch
from small_networks import create, images
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.utils.flop_counter import FlopCounterMode

from cyclemlp.models.activemlp import Offsets
from cyclemlp.models.cyclemlp import ConvStem
from cyclemlp.models.flops import count_flops
from cyclemlp.ops import ActiveFC, AxialFC, CycleFC

CONTAINERS = (nn.ModuleList, nn.Sequential)  # ActiveMLP's stage calls its blocks one by one


@pytest.mark.parametrize("training", [True, False])
def test_hooks_run_on_every_layer(model: Any, training: bool) -> None:
    expected = {name for name, module in model.named_modules() if not isinstance(module, CONTAINERS)}
    forward, backward = set[str](), set[str]()
    for name in expected:
        module = model.get_submodule(name)
        module.register_forward_hook(lambda *_, name=name: forward.add(name))
        module.register_full_backward_hook(lambda *_, name=name: backward.add(name))
    model.train(training)(images().requires_grad_()).square().sum().backward()
    assert forward == expected
    nested = {name for name in expected if isinstance(model.get_submodule(name), Offsets)}
    assert backward == expected - nested  # torch's backward hooks see tensors and tuples of tensors alone


def test_grad_cam(model: Any) -> None:
    kept: list[Tensor] = []
    for layer in (model.stages[-1], model.stages[-1].blocks[-1].channel_mlp.fc2):
        handle = layer.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
        score = model(images())[:, 1].sum()
        handle.remove()
        (gradient,) = torch.autograd.grad(score, kept[-1])
        heat = (kept[-1] * gradient.mean((1, 2), keepdim=True)).sum(-1).relu()
        assert heat.shape == (2, 2, 2)
        assert heat.isfinite().all()
        assert gradient.any()


class Scaled(nn.Module):
    """What an adapter or a quantised weight looks like to the network: a layer in the place of another."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.calls = 0

    def forward(self, *inputs: Any) -> Any:
        self.calls += 1
        return self.layer(*inputs)


@pytest.mark.parametrize("training", [True, False])
def test_any_linear_layer_can_be_replaced(model: Any, training: bool) -> None:
    before = model.train(training)(images())
    wrappers = []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                wrappers.append(Scaled(child))
                setattr(parent, name, wrappers[-1])
    assert any(isinstance(wrapper.layer, CycleFC | AxialFC | ActiveFC) for wrapper in wrappers)
    after = model(images())
    assert torch.equal(after, before)
    assert {wrapper.calls for wrapper in wrappers} == {1}
    after.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


class Negated(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return -weight


def test_weights_can_be_parametrized(model: Any) -> None:
    """Two networks with opposite weights are the same where one of them negates them."""
    expected = model(images())
    for module in list(model.modules()):
        if isinstance(module, nn.Linear):
            with torch.no_grad():
                module.weight.neg_()
            parametrize.register_parametrization(module, "weight", Negated())
    for training in (True, False):
        found = model.train(training)(images())
        torch.testing.assert_close(found, expected)
        found.sum().backward()


def test_pruned_weights_stay_zero_and_can_be_fused_afterwards(model: Any) -> None:
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for layer in layers:
        prune.l1_unstructured(layer, "weight", 0.5)  # type: ignore[no-untyped-call]
    found = model.train()(images())
    found.sum().backward()
    expected = model.eval()(images())
    for layer in layers:
        prune.remove(layer, "weight")  # type: ignore[no-untyped-call]
        assert (layer.weight == 0).float().mean() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(model(images()), expected)


def multiply_adds_of_layers(model: nn.Module, image: Tensor) -> int:
    total = 0

    def count(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()  # type: ignore[index]

    handles = [
        module.register_forward_hook(count) for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    model(image)
    for handle in handles:
        handle.remove()
    return total


@pytest.mark.parametrize("training", [True, False])
def test_torchs_counter_counts_every_product(model: Any, training: bool) -> None:
    model.train(training)
    with FlopCounterMode(display=False) as forward:
        logits = model(images(1).requires_grad_())
    expected = multiply_adds_of_layers(model, images(1))
    assert forward.get_total_flops() == 2 * expected
    assert count_flops(model, 64, 64, norm_flops=0) == expected
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    assert backward.get_total_flops() >= 4 * expected  # twice the forward pass


@pytest.mark.filterwarnings("ignore")
def test_fvcore_counts_every_product(model: Any) -> None:
    fvcore = pytest.importorskip("fvcore.nn", reason="fvcore is not installed")
    expected = multiply_adds_of_layers(model, images(1))
    counted = fvcore.FlopCountAnalysis(model, images(1)).by_operator()
    assert counted["linear"] + counted["conv"] == expected


@pytest.mark.filterwarnings("ignore")
def test_thop_counts_the_layers_that_it_is_told_of(name: str) -> None:
    thop = pytest.importorskip("thop", reason="thop is not installed")
    hooks = pytest.importorskip("thop.vision.basic_hooks", reason="thop is not installed")
    layers = {**dict.fromkeys((CycleFC, AxialFC, ActiveFC), hooks.count_linear), ConvStem: hooks.count_convNd}
    model = create(name)
    expected = multiply_adds_of_layers(model, images(1))
    counted = thop.profile(model, (images(1),), custom_ops=layers, verbose=False)[0]
    assert 1 <= counted / expected <= 1.1  # it counts norms as well


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["aten", "pytorch"])
def test_ptflops_counts_every_product_of_its_operators_and_not_of_classes_it_does_not_know(
    name: str, backend: str
) -> None:
    ptflops = pytest.importorskip("ptflops", reason="ptflops is not installed")
    model = create(name)
    expected = multiply_adds_of_layers(model, images(1))
    counted, _ = ptflops.get_model_complexity_info(
        model, (3, 64, 64), as_strings=False, print_per_layer_stat=False, verbose=False, backend=backend
    )
    assert (1 <= counted / expected <= 1.2) if backend == "aten" else (0.5 <= counted / expected < 1)


def test_torchinfo_lists_every_layer(name: str) -> None:
    torchinfo = pytest.importorskip("torchinfo", reason="torchinfo is not installed")
    model = create(name)
    found = torchinfo.summary(model, input_data=images(1), verbose=0, depth=10)
    assert {type(each.module) for each in found.summary_list} >= {type(each) for each in model.modules()} - {
        nn.Identity
    }
