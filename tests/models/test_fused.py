"""The exact inference form gives the plain form's values: every model, any size, in every way it can be run."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import timm
import torch
from every_format import follows_every_size
from timm.utils import reparameterize_model
from torch import Tensor, nn

from cyclemlp.errors import ConfigError
from cyclemlp.heads.segmentation import build_segmentation_model
from cyclemlp.models import CycleMixer, CycleMLP
from cyclemlp.models.cyclemlp import SIZES, CycleMLPSizes
from cyclemlp.models.cyclemlp_swin import SIZES as SWIN_SIZES
from cyclemlp.models.cyclemlp_swin import CycleSwinMLP, SummedCycleMixer
from cyclemlp.models.forms.fused_mixer import BlendedMixer, ChannelOrder, ConstantMixer, choose_form
from cyclemlp.models.patches import doubling

# Relative to the largest value. Rounding gives about 1e-6 and 5e-15 where weights are of the size training leaves.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def make(name: str = "cyclemlp_nano", **arguments: Any) -> nn.Module:
    """A model in eval mode with every weight, bias and scale drawn, so that no term is zero."""
    torch.manual_seed(0)
    return draw(timm.create_model(name, **arguments))


def make_shallow() -> nn.Module:
    """One block a stage, for what is slow in the number of layers."""
    torch.manual_seed(0)
    return draw(CycleMLP(CycleMLPSizes((16, 32, 48, 64), (1, 1, 1, 1), (1, 1, 1, 1)), num_classes=5))


Model = TypeVar("Model", bound=nn.Module)


def draw(model: Model) -> Model:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
            elif parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def assert_near(found: Tensor, wanted: Tensor, tolerance: float | None = None) -> None:
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    if wanted.numel():
        error = (found - wanted).abs().max() / wanted.abs().max()
        assert error <= (TOLERANCE[wanted.dtype] if tolerance is None else tolerance)


@pytest.mark.parametrize("name", [*SIZES, *SWIN_SIZES])
def test_values_of_every_model(name: str) -> None:
    """With its own widths and ratios, and one block a stage: what is fused is a block, whatever its number."""
    network, sizes = (CycleSwinMLP, SWIN_SIZES) if name in SWIN_SIZES else (CycleMLP, SIZES)
    torch.manual_seed(0)
    model = draw(network(replace(sizes[name], depths=(1, 1, 1, 1)), num_classes=5))
    fused = reparameterize_model(model)
    assert any(isinstance(module, ConstantMixer if name in SWIN_SIZES else BlendedMixer) for module in fused.modules())
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert_near(fused(images), model(images))


@pytest.mark.parametrize("stepsize", [1, 3, 5])
def test_values_with_patches_and_mergings(stepsize: int) -> None:
    torch.manual_seed(0)
    model = draw(CycleSwinMLP(CycleMLPSizes(doubling(20), (1, 2, 1, 1), stepsize=stepsize), num_classes=5)).double()
    fused = reparameterize_model(model)
    for size in SIZES_OF_IMAGES:
        images = torch.randn(size, dtype=torch.float64)
        with torch.no_grad():
            assert_near(fused(images), model(images))


SIZES_OF_IMAGES = [(1, 3, 224, 224), (2, 3, 97, 161), (3, 3, 32, 32), (1, 3, 35, 64), (0, 3, 64, 64)]


@pytest.mark.parametrize("stepsize", [1, 3, 5])
def test_values_of_every_size_one_after_the_other(stepsize: int) -> None:
    model = make(stepsize=stepsize, num_classes=5).double()
    fused = reparameterize_model(model)
    for size in SIZES_OF_IMAGES:
        images = torch.randn(size, dtype=torch.float64)
        with torch.no_grad():
            assert_near(fused(images), model(images))
        assert_near(fused(images), model(images))  # with autograd nothing is done in place


@pytest.mark.parametrize(("batch", "side"), [(1, 3), (4, 3), (1, 7), (2, 9), (1, 12), (2, 12)])
@pytest.mark.parametrize("in_place", [True, False])
def test_every_form_of_the_mixer(batch: int, side: int, in_place: bool) -> None:
    torch.manual_seed(0)
    mixer, order = draw(CycleMixer(32).double()), ChannelOrder.of(32, 3)
    x, u = torch.randn(2, batch, side, side + 1, 32, dtype=torch.float64)
    wanted = (x + mixer(u))[..., list(order.channels)]
    fused = BlendedMixer(mixer, order)
    with torch.no_grad():
        x, u = (each[..., list(order.channels)].contiguous() for each in (x, u))
        assert_near(fused(x, u, in_place), wanted.detach())


@pytest.mark.parametrize("in_place", [True, False])
def test_a_mixer_without_reweighting_has_one_constant_weight(in_place: bool) -> None:
    torch.manual_seed(0)
    mixer, order = draw(SummedCycleMixer(20).double()), ChannelOrder.of(20, 3)
    fused = ConstantMixer(mixer, order)
    assert fused.matrix.shape == (20 + 2 * order.moving + 3, 20)  # with three rows for biases
    for size in ((2, 5, 4), (1, 1, 1), (3, 1, 2)):
        x, u = torch.randn(2, *size, 20, dtype=torch.float64)
        wanted = (x + mixer(u))[..., list(order.channels)]
        x, u = (each[..., list(order.channels)].contiguous() for each in (x, u))
        with torch.no_grad():
            assert_near(fused(x, u, in_place), wanted.detach())


def test_the_form_follows_positions_and_channels() -> None:
    orders = {width: ChannelOrder.of(width, 3) for width in (64, 128, 320, 512)}
    assert orders[64].inputs == 64 + 2 * 42 + 3
    at_224 = [choose_form(1, edge**2, order) for edge, order in zip((56, 28, 14, 7), orders.values(), strict=True)]
    assert at_224 == ["folded", "folded", "blended", "blended"]
    at_512 = [choose_form(1, edge**2, order) for edge, order in zip((128, 64, 32, 16), orders.values(), strict=True)]
    assert at_512 == ["folded", "folded", "folded", "blended"]
    assert choose_form(8, 49, orders[512]) == "branches"
    assert choose_form(1, 1, orders[512]) == "branches"


@pytest.mark.parametrize(("width", "stepsize"), [(8, 3), (2, 3), (7, 5), (5, 1), (3, 7)])
def test_channel_order_groups_by_offset(width: int, stepsize: int) -> None:
    order = ChannelOrder.of(width, stepsize)
    assert sorted(order.channels) == list(range(width))
    assert [order.channels[place] for place in order.places] == list(range(width))
    half = len(order.moved) // 2
    along_width, along_height = order.moved[:half], order.moved[half:]
    for move in along_width:
        assert {(c + stepsize // 2) % stepsize - stepsize // 2 for c in order.channels[move.source]} == {move.right}
    assert [(move.source, move.right) for move in along_width] == [(move.source, move.down) for move in along_height]
    assert order.still + sum(move.source.stop - move.source.start for move in along_width) == width


@pytest.mark.parametrize("indices", [(0, 1, 2, 3), (1, 3), (0, 2)])
def test_feature_maps_have_the_models_channel_order(indices: Sequence[int]) -> None:
    model = make(features_only=True, out_indices=indices)
    fused = reparameterize_model(model)
    images = torch.randn(2, 3, 65, 96)
    with torch.no_grad():
        for found, wanted in zip(fused(images), model(images), strict=True):
            assert_near(found, wanted)
    assert fused.feature_info.channels() == model.feature_info.channels()  # type: ignore[union-attr, operator]


def test_intermediates_and_final_map_of_a_classifier() -> None:
    model: Any = make()
    fused = reparameterize_model(model)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for norm in (False, True):
            last, maps = model.forward_intermediates(images, norm=norm)
            last_fused, maps_fused = fused.forward_intermediates(images, norm=norm)
            for found, wanted in zip([last_fused, *maps_fused], [last, *maps], strict=True):
                assert_near(found, wanted)


def test_a_segmentation_model_is_fused_inside() -> None:
    torch.manual_seed(0)
    model = build_segmentation_model("cyclemlp_nano", "semantic-fpn", 4).eval()
    fused = reparameterize_model(model)
    images = torch.randn(1, 3, 70, 45)
    with torch.no_grad():
        assert_near(fused(images), model(images))


def test_fusing_again_changes_nothing() -> None:
    model = make()
    once = reparameterize_model(model)
    twice = reparameterize_model(once)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(twice(images), once(images))


def test_the_model_itself_stays_as_it_was() -> None:
    model = make()
    before = copy.deepcopy(model.state_dict())
    reparameterize_model(model)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_inputs_and_earlier_maps_are_not_written_to() -> None:
    fused = reparameterize_model(make(features_only=True))
    images = torch.randn(2, 3, 64, 64)
    given = images.clone()
    with torch.inference_mode():
        maps = fused(images)
        kept = [each.clone() for each in maps]
        fused(torch.randn(2, 3, 64, 64))
    assert torch.equal(images, given)
    assert all(torch.equal(a, b) for a, b in zip(maps, kept, strict=True))


def test_channels_last_images_give_the_same() -> None:
    model = make()
    fused = reparameterize_model(model)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert_near(fused(images.contiguous(memory_format=torch.channels_last)), model(images))
        assert_near(fused.to(memory_format=torch.channels_last)(images), model(images))


def test_gradients_reach_the_image() -> None:
    model = make(num_classes=3).double()
    fused = reparameterize_model(model)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    (wanted,) = torch.autograd.grad(model(images).square().sum(), images)
    (found,) = torch.autograd.grad(fused(images).square().sum(), images)
    assert_near(found, wanted)


def test_bfloat16_autocast_is_as_near_as_the_plain_form() -> None:
    model = make()
    fused = reparameterize_model(model)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        wanted = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            plain, found = model(images).float(), fused(images).float()
    scale = wanted.abs().max()
    assert (found - wanted).abs().max() / scale <= max(0.03, 1.5 * float((plain - wanted).abs().max() / scale))


def test_half_precision_weights() -> None:
    model = make()
    wanted_dtype = torch.bfloat16
    fused = reparameterize_model(model).to(wanted_dtype)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found = fused(images.to(wanted_dtype))
        assert found.dtype == wanted_dtype
        assert_near(found.float(), model(images), tolerance=0.05)


@follows_every_size
def test_export_takes_any_batch_and_size() -> None:
    model = make_shallow()
    fused = reparameterize_model(model)
    batch, height, width = (torch.export.Dim(name, min=low, max=2048) for name, low in (("n", 1), ("h", 64), ("w", 64)))
    shapes = ({0: batch, 2: height, 3: width},)
    exported = torch.export.export(fused, (torch.randn(2, 3, 128, 160),), dynamic_shapes=shapes).module()
    for size in ((1, 3, 64, 64), (3, 3, 97, 161), (1, 3, 224, 256)):
        images = torch.randn(size)
        with torch.no_grad():
            assert_near(exported(images), model(images))


def test_compile_traces_one_graph() -> None:
    model = make_shallow()
    compiled: Any = torch.compile(reparameterize_model(model), backend="aot_eager", fullgraph=True)
    for size in ((1, 3, 64, 64), (2, 3, 96, 64)):
        images = torch.randn(size)
        with torch.no_grad():
            assert_near(compiled(images), model(images))


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training mode.*call model\.eval\(\)"):
        reparameterize_model(make().train())


def test_different_staircases_in_one_stage_are_refused() -> None:
    model: Any = make()
    model.stages[1].blocks[1].token_mixer = CycleMixer(64, stepsize=5).eval()
    with pytest.raises(ConfigError, match="one step size a stage"):
        reparameterize_model(model)
