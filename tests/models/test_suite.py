"""One suite for every model this package registers: timm's contract, any image size, every parameter in use.

Each network is built once and computes on 32x32 images; sizes and options are checked on the meta device, where a
forward pass costs no arithmetic. What the sizes of a network cannot change is checked on the smallest of its family.
"""

from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import timm
import torch
from timm.models import model_entrypoint
from timm.models._manipulate import group_with_matcher
from torch import Tensor, nn

import cyclemlp

pytestmark = pytest.mark.usefixtures("one_thread")
OURS = [name for name in timm.list_models() if model_entrypoint(name).__module__.startswith(f"{cyclemlp.__name__}.")]
SMALLEST = [
    "cyclemlp_nano",
    "cyclemlp_tiny",
    "asmlp_tiny",
    "activemlp_nano",
]  # one a family: the others differ in sizes alone
STRIDES = (4, 8, 16, 32)
IMAGE_SIZES = [(32, 32), (33, 65), (250, 187), (224, 224), (40, 1000)]


@pytest.fixture(scope="module", params=OURS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def built(name: str) -> Any:
    torch.manual_seed(0)
    return create(name, num_classes=7)


@pytest.fixture
def model(built: Any) -> Any:
    """The network of this module's model, without gradients, in eval mode."""
    return fresh(built)


@pytest.fixture(scope="module", params=SMALLEST)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def built_of_family(family: str) -> Any:
    torch.manual_seed(0)
    return create(family, num_classes=7)


@pytest.fixture
def small(built_of_family: Any) -> Any:
    """The smallest network of a family, without gradients, in eval mode."""
    return fresh(built_of_family)


def fresh(built: Any) -> Any:
    built.zero_grad(set_to_none=True)
    return built.eval()


def create(name: str, **options: Any) -> Any:
    return timm.create_model(name, **options)


def on_meta(name: str, **options: Any) -> Any:
    with torch.device("meta"):
        return create(name, **options)


def shallow(name: str, **options: Any) -> Any:
    """On the meta device with one block a stage: the shapes of the whole network in a fraction of the time."""
    model = on_meta(name, **options)
    for stage in getattr(model, "model", model).stages:
        stage.blocks = stage.blocks[:1]
    return model


@cache
def shallow_features(name: str) -> Any:
    return shallow(name, features_only=True)


def image(height: int = 32, width: int = 32, chans: int = 3, batch: int = 1, device: str = "cpu") -> Tensor:
    generator = None if device == "meta" else torch.Generator().manual_seed(1)
    return torch.randn(batch, chans, height, width, generator=generator, device=device)


def test_every_family_is_registered() -> None:
    assert len(OURS) == 18
    assert set(SMALLEST) <= set(OURS)


def test_logits_and_their_parts(model: Any) -> None:
    x = image(batch=2)
    with torch.no_grad():
        logits = model(x)
        assert logits.shape == (2, 7)
        assert logits.isfinite().all()
        features = model.forward_features(x)
        assert torch.equal(model.forward_head(features), logits)
        assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)
        # an image's result does not depend on its neighbours in the batch
        assert torch.allclose(model(x[1:]), logits[1:], rtol=1e-4, atol=1e-5)


def test_every_parameter_has_a_gradient(model: Any) -> None:
    model.train()(image(33, 65, batch=2)).square().sum().backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_checkpointing_gives_the_same_gradients(small: Any) -> None:
    gradients: list[Tensor] = []
    for enable in (False, True):
        small.set_grad_checkpointing(enable)
        x = image().requires_grad_()
        gradients += torch.autograd.grad(small.train()(x).square().sum(), x)
    small.set_grad_checkpointing(False)
    assert torch.equal(gradients[0], gradients[1])


@pytest.mark.parametrize(("height", "width"), IMAGE_SIZES)
def test_maps_at_every_size(name: str, height: int, width: int) -> None:
    features = shallow_features(name)
    assert features.feature_info.reduction() == list(STRIDES)
    maps = features(image(height, width, device="meta"))
    assert [m.shape[1] for m in maps] == features.feature_info.channels()
    for m, stride in zip(maps, STRIDES, strict=True):
        for given, edge in zip(m.shape[2:], (height, width), strict=True):
            assert given in (edge // stride, -(-edge // stride))


def test_maps_are_those_of_the_whole_network(family: str, small: Any) -> None:
    x, model = image(33, 65), small
    features = on_meta(family, features_only=True, num_classes=7)
    features.load_state_dict(model.state_dict(), assign=True)
    with torch.no_grad():
        last, maps = model.forward_intermediates(x)
        assert torch.equal(last, model.forward_features(x))
        nhwc = model.forward_intermediates(x, output_fmt="NHWC", intermediates_only=True)
        for one, other, again in zip(features.eval()(x), maps, nhwc, strict=True):
            assert torch.equal(one, other)
            assert torch.equal(one, again.permute(0, 3, 1, 2))
        (normed,) = model.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)
        assert torch.equal(normed, last.permute(0, 3, 1, 2))
        early = model.forward_intermediates(x, indices=[1], stop_early=True)
        assert torch.equal(early[1][0], maps[1])
    with pytest.raises(ValueError, match="'NCHW' and 'NHWC'"):
        model.forward_intermediates(x, output_fmt="NLC")


@pytest.mark.parametrize("indices", [(0,), (1, 3), (1, 2, 3), (-1,)])
def test_chosen_maps_keep_no_unused_parameter(family: str, indices: tuple[int, ...]) -> None:
    features = shallow(family, features_only=True, out_indices=indices)
    absolute = [index % 4 for index in indices]
    assert features.feature_info.reduction() == [STRIDES[index] for index in absolute]
    assert len(features.model.stages) == absolute[-1] + 1
    assert [key for key in features.state_dict() if key.startswith(("model.norm", "model.head"))] == []
    maps = features(image(64, 96, device="meta"))
    assert [m.shape[2:] for m in maps] == [(64 // STRIDES[i], 96 // STRIDES[i]) for i in absolute]


@pytest.mark.parametrize("chans", [1, 4])
def test_other_input_channels(family: str, chans: int) -> None:
    model = shallow(family, in_chans=chans)
    assert model(image(chans=chans, device="meta")).shape == (1, 1000)


def test_head_can_be_replaced(name: str) -> None:
    model = shallow(name)
    assert model.get_classifier().out_features == 1000
    model.reset_classifier(5)
    assert model.num_classes == model.get_classifier().out_features == 5
    assert model(image(device="meta")).shape == (1, 5)
    model.reset_classifier(0)
    assert model(image(device="meta")).shape == (1, model.num_features)
    model.reset_classifier(0, "")
    assert model(image(64, 96, device="meta")).shape[0] == 1
    assert isinstance(model.get_classifier(), nn.Identity)


def test_no_head_and_no_pooling(family: str) -> None:
    pooled = shallow(family, num_classes=0)
    assert pooled(image(device="meta")).shape == (1, pooled.num_features)
    assert not any(key.startswith("head.") for key in pooled.state_dict())
    maps = shallow(family, num_classes=0, global_pool="")
    x = image(64, 96, device="meta")
    assert maps(x).shape == maps.forward_features(x).shape


def test_state_dict_comes_back(family: str, small: Any) -> None:
    other = on_meta(family, num_classes=7)
    other.load_state_dict({key: value.clone() for key, value in small.state_dict().items()}, assign=True)
    with torch.no_grad():
        assert torch.equal(other.eval()(image()), small(image()))


def test_depth_of_every_parameter(name: str) -> None:
    model = on_meta(name)
    depth = group_with_matcher(model.named_parameters(), model.group_matcher(), reverse=True)
    assert depth.keys() == dict(model.named_parameters()).keys()
    assert {key for key, layer in depth.items() if layer == 0} == {key for key in depth if key.startswith("stem.")}
    blocks = [len(stage.blocks) for stage in model.stages]
    assert max(depth.values()) == sum(blocks) + 1
    assert depth["head.fc.weight"] == sum(blocks) + 1
    assert depth["norm.weight"] == sum(blocks)
    for s in range(1, 4):
        assert {depth[key] for key in depth if key.startswith(f"stages.{s}.downsample")} == {sum(blocks[:s]) + 1}
    coarse = group_with_matcher(model.named_parameters(), model.group_matcher(coarse=True), reverse=True)
    assert max(coarse.values()) == 5
    undecayed = {key for key in depth if ".position." in key}  # ActiveMLP's, as its authors train it
    assert model.no_weight_decay() == undecayed
    assert bool(undecayed) == name.startswith("activemlp_")


def test_drop_path_grows_with_depth(name: str) -> None:
    blocks = [block for stage in on_meta(name, drop_path_rate=0.2).stages for block in stage.blocks]
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]
    assert rates[0] == 0.0
    assert rates[-1] == pytest.approx(0.2)
    assert rates == sorted(rates)
    steps = [b - a for a, b in pairwise(rates)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-4)  # linear over all blocks, as in the authors' code


def test_drop_path_and_dropout_act_in_training_alone(family: str) -> None:
    torch.manual_seed(0)
    model = create(family, drop_path_rate=0.5, drop_rate=0.5, num_classes=7)
    x = image(batch=2)
    with torch.no_grad():
        assert not torch.equal(model.train()(x), model.train()(x))
        assert torch.equal(model.eval()(x), model.eval()(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(family: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = create(family, num_classes=7).eval()
    with torch.no_grad():
        exact = model(image(64, 64))
        with torch.autocast("cpu", dtype=dtype):
            mixed = model(image(64, 64))
        half = model.to(dtype)(image(64, 64).to(dtype))
    assert half.dtype == dtype
    for given in (mixed, half):  # eight bits of mantissa over some thirty layers
        assert (given.float() - exact).norm() <= 0.1 * exact.norm()


def test_unknown_options_are_refused(family: str) -> None:
    with pytest.raises(TypeError, match="drop_path_ratio"):
        on_meta(family, drop_path_ratio=0.1)
