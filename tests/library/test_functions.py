"""torch.func: per-sample gradients, forward derivatives, ensembles; and graphs of torch.fx."""

from typing import Any

import pytest
import torch
from small_networks import SMALL, create, images
from timm.models import create_feature_extractor as timms_extractor
from torch import Tensor
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, stack_module_state, vmap
from torchvision.models.feature_extraction import create_feature_extractor

from cyclemlp import lean_, plain_

# torch's own forward derivatives use what it has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")


def assert_equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def loss(model: Any, parameters: dict[str, Tensor], image: Tensor) -> Tensor:
    logits: Tensor = functional_call(model, parameters, (image[None],))
    return logits.square().sum()


def test_gradients_of_each_sample(model: Any) -> None:
    model.double()
    parameters = {key: value.detach() for key, value in model.named_parameters()}
    batch = images(3, 32, 64).double()
    found = vmap(grad(lambda p, x: loss(model, p, x)), (None, 0))(parameters, batch)
    for k, image in enumerate(batch):
        expected = grad(lambda p, x=image: loss(model, p, x))(parameters)
        for key, value in expected.items():
            assert_equal(found[key][k], value)


def test_forward_derivatives_are_the_backward_ones(model: Any) -> None:
    model.double()
    x, direction = images(1, 32, 64).double(), images(1, 64, 32).double().transpose(2, 3)
    tangent: Any = jvp(model, (x,), (direction,))[1]
    jacobian = jacrev(model)(x)
    assert_equal(tangent, torch.einsum("bobchw,bchw->bo", jacobian, direction))
    several = vmap(lambda v: jvp(model, (x,), (v,))[1])(torch.stack([direction, 2 * direction]))
    assert_equal(several, torch.stack([tangent, 2 * tangent]))


@pytest.mark.parametrize("part", ["token_mixer", "channel_mlp"])
def test_the_lean_form_refuses_forward_derivatives_and_names_the_plain_one(part: str) -> None:
    model: Any = lean_(create("cyclemlp_nano"))
    layer, x = model.stages[0].blocks[0].get_submodule(part), torch.randn(1, 8, 8, 12)
    with pytest.raises(
        NotImplementedError, match=r"^the lean form .* call cyclemlp\.plain_\(model\) before jvp[^\n]*$"
    ):
        jvp(layer, (x,), (x,))
    plain_(model)
    tangent: Any = jvp(layer, (x,), (x,))[1]
    assert tangent.isfinite().all()


@pytest.mark.parametrize("parameter", ["weight", "bias"])
def test_forward_derivatives_by_the_parameters_of_a_staircase(parameter: str) -> None:
    layer = create("cyclemlp_nano").double().stages[0].blocks[0].token_mixer.along_width
    x, value = torch.randn(2, 3, 4, 12, dtype=torch.float64), getattr(layer, parameter).detach()

    def out(each: Tensor) -> Tensor:
        return functional_call(layer, {parameter: each}, (x,))

    assert_equal(jacfwd(out)(value), jacrev(out)(value))


def test_an_ensemble_in_one_pass(name: str) -> None:
    several, x = [create(name) for _ in range(2)], images(2, 32, 32)
    for parameter in several[1].parameters():
        parameter.data.mul_(1.1)
    parameters, buffers = stack_module_state(several)
    found = vmap(lambda p, b: functional_call(several[0], (p, b), (x,)))(parameters, buffers)
    for logits, network in zip(found, several, strict=True):
        torch.testing.assert_close(logits, network(x), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("extractor", [create_feature_extractor, timms_extractor])
def test_features_by_symbolic_trace(model: Any, extractor: Any, training: bool) -> None:
    model.train(training)
    features = extractor(model, ["stages.1.blocks.0.channel_mlp.fc2", "stages.3.blocks.0", "head"])
    for size in ((2, 64, 64), (1, 37, 130)):  # the graph is that of any size
        found = features(images(*size))
        torch.testing.assert_close(found["head"], model(images(*size)))
        assert found["stages.3.blocks.0"].shape == model.forward_features(images(*size)).shape
    found["head"].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_every_family_is_tried() -> None:
    assert len({module for module, _ in SMALL.values()}) == 4
