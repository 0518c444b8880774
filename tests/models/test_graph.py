"""The graph form gives the plain form's values, whatever size it was made for, and exports for any size."""

import copy
from typing import Any, TypeVar, get_args

import pytest
import timm
import torch
from every_format import follows_every_size
from torch import Tensor, nn

from cyclemlp.models import CycleMixer, CycleMLP
from cyclemlp.models.cyclemlp import SIZES, CycleMLPSizes
from cyclemlp.models.cyclemlp_swin import CycleSwinMLP
from cyclemlp.models.forms import fused, fused_mixer
from cyclemlp.models.forms.fused import graph_form
from cyclemlp.models.forms.fused_mixer import BlendedMixer, ChannelOrder, Form, choose_form
from cyclemlp.models.patches import doubling
from cyclemlp.ops.cycle_fc import cycle_plan
from cyclemlp.ops.shift import shift

# Relative to the largest value; float64 shows that the form is exact and float32 that it is stable.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


Model = TypeVar("Model", bound=nn.Module)


def draw(model: Model) -> Model:
    """Every weight, bias and scale drawn, so that no term is zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
            elif parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def assert_near(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    if wanted.numel():
        assert (found - wanted).abs().max() / wanted.abs().max() <= TOLERANCE[wanted.dtype]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute as in a graph that is being recorded, whose form does not follow the size of the images."""
    for module in (fused, fused_mixer):
        monkeypatch.setattr(module, "is_recorded", lambda: True)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("name", SIZES)
def test_values_of_every_model(name: str) -> None:
    torch.manual_seed(0)
    model = draw(timm.create_model(name, num_classes=5))
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert_near(graph_form(model)(images), model(images))


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("image_size", [32, 224, 1024])
@pytest.mark.parametrize("stepsize", [1, 3, 5])
def test_values_of_every_size_whatever_it_was_made_for(stepsize: int, image_size: int) -> None:
    torch.manual_seed(0)
    sizes = CycleMLPSizes((16, 32, 48, 64), (1, 1, 1, 1), (1, 1, 1, 1), stepsize)
    swin = CycleSwinMLP(CycleMLPSizes(doubling(20), (1, 1, 1, 1), stepsize=stepsize))
    for plain in (CycleMLP(sizes, num_classes=5), swin):
        model = draw(plain).double()
        form = graph_form(model, image_size)
        for size in [(1, 3, 224, 224), (2, 3, 97, 161), (3, 3, 32, 32), (1, 3, 35, 64), (0, 3, 64, 64)]:
            images = torch.randn(size, dtype=torch.float64)
            with torch.no_grad():
                assert_near(form(images), model(images))


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("form", get_args(Form))
@pytest.mark.parametrize(("batch", "side"), [(1, 3), (4, 3), (1, 1), (2, 9)])
def test_every_form_of_the_mixer(batch: int, side: int, form: Form) -> None:
    torch.manual_seed(0)
    mixer, order = draw(CycleMixer(32).double()), ChannelOrder.of(32, 3)
    x, u = torch.randn(2, batch, side, side + 1, 32, dtype=torch.float64)
    wanted = (x + mixer(u))[..., list(order.channels)]
    graph = BlendedMixer(mixer, order)
    graph.graph_form = form
    found = graph(x[..., list(order.channels)], u[..., list(order.channels)], False)
    assert_near(found.detach(), wanted.detach())


def test_the_form_follows_positions_and_channels() -> None:
    orders = [ChannelOrder.of(width, 3) for width in (64, 128, 320, 512)]
    forms = {
        (batch, size): [choose_form(batch, (size // 2**s) ** 2, orders[s - 2], graph=True) for s in (2, 3, 4, 5)]
        for batch, size in ((1, 224), (1, 512), (8, 224))
    }
    assert forms == {
        (1, 224): ["folded", "folded", "blended", "branches"],
        (1, 512): ["folded", "folded", "folded", "blended"],
        (8, 224): ["folded", "folded", "branches", "branches"],
    }


@pytest.mark.parametrize("in_place", [True, False])
def test_the_inputs_of_the_product_are_the_staircases_and_ones(in_place: bool) -> None:
    mixer, order = CycleMixer(7, stepsize=5), ChannelOrder.of(7, 5)
    x = torch.randn(2, 4, 3, 7)
    ordered = x[..., list(order.channels)]
    inputs = BlendedMixer(mixer, order).inputs(ordered, in_place)
    ones = torch.ones(2, 4, 3, 1)
    staircases = []
    for parts, stepsize in ((inputs.along_width, (1, 5)), (inputs.along_height, (5, 1))):
        wanted = shift(x, cycle_plan(7, stepsize))[..., list(order.channels)][..., order.still :]
        staircases.append(torch.cat([wanted, ones], -1))
        assert torch.equal(torch.cat(parts, -1), staircases[-1])
    assert torch.equal(torch.cat(inputs.factors, -1), torch.cat([ordered, ones, *staircases], -1))


def test_the_model_itself_stays_as_it_was() -> None:
    model = timm.create_model("cyclemlp_nano").eval()
    before = copy.deepcopy(model.state_dict())
    graph_form(model)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@follows_every_size
def test_export_takes_any_batch_and_size() -> None:
    torch.manual_seed(0)
    model = draw(CycleMLP(CycleMLPSizes((16, 32, 48, 64), (1, 1, 1, 1), (1, 1, 1, 1)), num_classes=5))
    batch, height, width = (torch.export.Dim(name, min=low, max=2048) for name, low in (("n", 1), ("h", 35), ("w", 35)))
    shapes = ({0: batch, 2: height, 3: width},)
    exported: Any = torch.export.export(graph_form(model), (torch.randn(2, 3, 128, 160),), dynamic_shapes=shapes)
    for size in ((1, 3, 35, 35), (3, 3, 97, 161), (1, 3, 224, 256)):
        images = torch.randn(size)
        with torch.no_grad():
            assert_near(exported.module()(images), model(images))
