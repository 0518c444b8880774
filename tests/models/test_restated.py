"""The models without printed values, against the authors' forward pass restated as plain functions.

The restatement reads the authors' keys, and CycleFC is in it what it is in their code: a deformable convolution
steered by the offset buffer of the checkpoint. It shares nothing with the package but torch.
"""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d

import cyclemlp  # noqa: F401  registers the models

pytestmark = pytest.mark.usefixtures("one_thread")
Weights = dict[str, Tensor]

PARAMETERS = {"cyclemlp_b1": 15.155, "cyclemlp_b3": 38.386, "cyclemlp_b4": 51.797, "cyclemlp_b5": 75.747}


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[name + ".weight"], weights.get(name + ".bias"))


def layer_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[name + ".weight"], weights[name + ".bias"])


def two_layers(weights: Weights, name: str, x: Tensor) -> Tensor:
    return linear(weights, name + ".fc2", F.gelu(linear(weights, name + ".fc1", x)))


def deformed(weights: Weights, name: str, x_nhwc: Tensor) -> Tensor:
    batch, height, width, _ = x_nhwc.shape
    offset = weights[name + ".offset"].expand(batch, -1, height, width)
    x = x_nhwc.permute(0, 3, 1, 2).contiguous()
    out: Tensor = deform_conv2d(x, offset, weights[name + ".weight"], weights[name + ".bias"])
    return out.permute(0, 2, 3, 1)


def cycle_mixing(weights: Weights, name: str, x: Tensor) -> Tensor:
    branches = torch.stack(
        [
            deformed(weights, name + ".sfc_h", x),
            deformed(weights, name + ".sfc_w", x),
            linear(weights, name + ".mlp_c", x),
        ]
    )
    votes = two_layers(weights, name + ".reweight", branches.sum(0).mean((1, 2)))
    shares = votes.reshape(x.shape[0], -1, 3).softmax(2)  # per image and channel: three numbers, one a branch
    return linear(weights, name + ".proj", torch.einsum("kbijc,bck->bijc", branches, shares))


def cyclemlp_logits(weights: Weights, image: Tensor) -> Tensor:
    x = F.conv2d(image, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=4, padding=2)
    x = x.permute(0, 2, 3, 1)
    for place in range(7):
        conv = f"network.{place}.proj"
        if conv + ".weight" in weights:
            x = F.conv2d(x.permute(0, 3, 1, 2), weights[conv + ".weight"], weights[conv + ".bias"], stride=2, padding=1)
            x = x.permute(0, 2, 3, 1)
        block = 0
        while f"network.{place}.{block}.norm1.weight" in weights:
            at = f"network.{place}.{block}."
            x = x + cycle_mixing(weights, at + "attn", layer_norm(weights, at + "norm1", x))
            x = x + two_layers(weights, at + "mlp", layer_norm(weights, at + "norm2", x))
            block += 1
    return linear(weights, "head", layer_norm(weights, "norm", x).mean((1, 2)))


def loaded(name: str, weights: Weights) -> Any:
    with torch.device("meta"):
        model = timm.create_model(name)
    model.load_state_dict(weights, assign=True)
    return model.eval()


@pytest.mark.parametrize("name", PARAMETERS)
def test_cyclemlp_equals_the_restatement(name: str, parity: Any) -> None:
    weights = {key: value.double() for key, value in parity.state_dict(name).items()}
    image = parity.image(64, 96).double()
    model = loaded(name, weights)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 3) == PARAMETERS[name]
    with torch.no_grad():
        expected = cyclemlp_logits(weights, image)
        assert (model(image) - expected).norm() <= 1e-9 * expected.norm()
