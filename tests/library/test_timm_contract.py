"""What timm's own suite checks of its models, for every model that this package registers.

Shapes and places are checked on the meta device and values on small networks, one for each family.
"""

import inspect
from typing import Any

import pytest
import timm
import torch
from small_networks import SMALL, create, images
from timm.layers import get_channel_dim, get_spatial_dim
from timm.models import get_pretrained_cfg, model_entrypoint
from torch import nn

import cyclemlp
from cyclemlp.errors import ConfigError
from cyclemlp.models.forms.fused import graph_form

OURS = [name for name in timm.list_models() if model_entrypoint(name).__module__.startswith(f"{cyclemlp.__name__}.")]


def on_meta(name: str, **options: Any) -> Any:
    with torch.device("meta"):
        return timm.create_model(name, **options)


def shallow(model: Any) -> Any:
    """One block in each stage: the same shapes in a fraction of the time."""
    for stage in getattr(model, "model", model).stages:
        stage.blocks = stage.blocks[:1]
    return model


@pytest.mark.parametrize("ours", OURS)
def test_names_and_sizes_of_the_configuration(ours: str) -> None:
    model = on_meta(ours).eval()
    cfg, keys = model.default_cfg, model.state_dict()
    assert f"{cfg['classifier']}.weight" in keys
    assert f"{cfg['first_conv']}.weight" in keys
    assert model.in_chans == cfg["input_size"][0]
    assert model.num_classes == cfg["num_classes"]
    image = torch.randn(1, *cfg["input_size"], device="meta")
    features = shallow(model).forward_features(image)
    spatial = [features.shape[axis] for axis in get_spatial_dim(model.output_fmt)]
    assert tuple(spatial) == cfg["pool_size"]
    assert features.shape[get_channel_dim(model.output_fmt)] == model.num_features
    assert model.forward_head(features, pre_logits=True).shape == (1, model.head_hidden_size)
    model.to(torch.bfloat16)
    assert model(image.bfloat16()).dtype == torch.bfloat16
    assert inspect.signature(model.reset_classifier).parameters["global_pool"].default is None


@pytest.mark.parametrize("ours", OURS)
def test_device_and_type_are_the_ones_asked_for(ours: str) -> None:
    model = timm.create_model(ours, device="meta", dtype=torch.float64)
    model.train().requires_grad_(False).reset_classifier(0)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    model.reset_classifier(2)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    assert {(tensor.device.type, tensor.dtype) for _, tensor in tensors} == {("meta", torch.float64)}
    assert all(module.training for module in model.modules())


def test_device_and_type_give_the_weights_of_without(name: str) -> None:
    torch.manual_seed(3)
    plain = timm.create_model(name)
    torch.manual_seed(3)
    placed = timm.create_model(name, device="cpu", dtype=torch.float32)
    for one, other in zip(plain.parameters(), placed.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_strides_of_maps(name: str, output_stride: int) -> None:
    features = on_meta(name, features_only=True, output_stride=output_stride)
    reductions = [min(stride, output_stride) for stride in (4, 8, 16, 32)]
    assert features.feature_info.reduction() == reductions
    maps = features(torch.randn(1, 3, 64, 96, device="meta"))
    assert [tuple(each.shape[2:]) for each in maps] == [(64 // r, 96 // r) for r in reductions]
    assert features.state_dict().keys() <= {f"model.{key}" for key in on_meta(name).state_dict()}


@pytest.mark.parametrize("ours", [ours for ours in OURS if not get_pretrained_cfg(ours).has_weights])
def test_without_weights_timm_says_so(ours: str) -> None:
    with pytest.raises(RuntimeError, match=f"^No pretrained weights exist for {ours}. Use `pretrained=False`"):
        timm.create_model(ours, pretrained=True, device="meta")


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 97), (32, 160)])
def test_every_second_position_of_a_dilated_stage_is_that_of_the_plain_one(height: int, width: int) -> None:
    """As in DeepLab: the network without statistics over whole maps computes the same between finer positions."""
    plain, x = create("cyclemlp_tiny").double(), images(1, height, width).double()
    for output_stride in (16, 8):
        dilated = create("cyclemlp_tiny", output_stride=output_stride).double()
        dilated.load_state_dict(plain.state_dict())
        for step, one, other in zip(
            [1, 1, 16 // output_stride, 32 // output_stride],
            plain.forward_intermediates(x, intermediates_only=True),
            dilated.forward_intermediates(x, intermediates_only=True),
            strict=True,
        ):
            torch.testing.assert_close(other[..., ::step, ::step], one, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "layer", "dilation"),
    [
        *((name, "downsample", 2) for name in SMALL),
        *((name, "blocks.0.token_mixer", 4) for name in SMALL if name != "activemlp_nano"),
        ("activemlp_nano", "position", 4),
    ],
)
def test_the_layers_of_every_family_are_dilated(name: str, layer: str, dilation: int) -> None:
    """A change of one position reaches only positions whose distance is a multiple of the dilation."""
    model = create(name, output_stride=8).double()
    module = model.stages[3].get_submodule(layer)
    for norm in [each for each in module.modules() if isinstance(each, nn.GroupNorm)]:
        norm.forward = lambda x: x  # type: ignore[method-assign, assignment]  # reads all positions
    if hasattr(module, "reweight"):  # likewise
        module.branch_weights = lambda mean: mean.new_ones(len(mean), 1, 1, mean.shape[1], 3)
    width = model.feature_info[2 if layer == "downsample" else 3]["num_chs"]
    x = torch.randn(1, 17, 17, width, dtype=torch.float64)
    other = x.clone()
    other[0, 8, 8] += 1
    changed = (module(other) != module(x))[0].any(-1).nonzero() - 8
    assert len(changed) > 1
    assert (changed % dilation == 0).all()
    assert changed.abs().max() >= dilation


def test_the_offsets_of_active_mixing_are_dilated() -> None:
    assert [stage.blocks[0].offsets.dilation for stage in create("activemlp_nano", output_stride=8).stages] == [
        1,
        1,
        2,
        4,
    ]


def test_dilated_networks_have_all_forms(name: str) -> None:
    model, x = create(name, output_stride=8).double(), images(2, 64, 97).double()
    expected = model(x)
    torch.testing.assert_close(graph_form(model)(x), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(cyclemlp.lean_(model)(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("output_stride", [0, 4, 12, 64])
def test_other_strides_are_refused(output_stride: int) -> None:
    with pytest.raises(ConfigError, match=f"output_stride is {output_stride}; allowed are 8, 16 and 32"):
        timm.create_model("cyclemlp_nano", output_stride=output_stride)


def test_pruned_networks_return_the_maps_of_the_whole_one(name: str) -> None:
    x = images()
    whole = create(name)
    maps, logits = whole.forward_intermediates(x, intermediates_only=True), whole(x)
    for index in range(4):
        pruned = create(name)
        kept = pruned.prune_intermediate_layers([index], prune_norm=True)
        torch.testing.assert_close(pruned.forward_intermediates(x, kept, intermediates_only=True)[0], maps[index])
        features = pruned.train().forward_features(x)
        torch.testing.assert_close(features.permute(0, 3, 1, 2), maps[index])
        features.sum().backward()
        assert all(parameter.grad is not None for parameter in pruned.parameters())
    with_head = create(name)
    with_head.prune_intermediate_layers([3], prune_head=False)
    torch.testing.assert_close(with_head(x), logits)


def test_the_families_tried_are_all() -> None:
    homes = {model_entrypoint(ours).__module__ for ours in OURS}
    assert homes == {model_entrypoint(name).__module__ for name in SMALL}
