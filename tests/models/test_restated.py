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


ASMLP_PARAMETERS = {"asmlp_tiny": 28.283, "asmlp_small": 49.595, "asmlp_base": 87.753}


def pointwise(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.conv2d(x, weights[name + ".weight"], weights.get(name + ".bias"))


def whole_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 1, weights[name + ".weight"], weights[name + ".bias"])


def shifted(x: Tensor, dim: int) -> Tensor:
    """Five chunks of channels, read from two positions ahead to two behind along `dim` of an NCHW map."""
    out = torch.zeros_like(x)
    edge = x.shape[dim]
    for chunk_out, chunk_in, ahead in zip(out.chunk(5, 1), x.chunk(5, 1), (2, 1, 0, -1, -2), strict=True):
        kept = max(0, edge - abs(ahead))
        chunk_out.narrow(dim, max(0, -ahead), kept).copy_(chunk_in.narrow(dim, max(0, ahead), kept))
    return out


def axial_block(weights: Weights, name: str, x: Tensor) -> Tensor:
    y = whole_norm(weights, name + "norm1", x)
    y = F.gelu(whole_norm(weights, name + "axial_shift.norm1", pointwise(weights, name + "axial_shift.conv1", y)))
    across = F.gelu(pointwise(weights, name + "axial_shift.conv2_1", shifted(y, 3)))
    down = F.gelu(pointwise(weights, name + "axial_shift.conv2_2", shifted(y, 2)))
    y = whole_norm(weights, name + "axial_shift.norm2", across + down)
    x = x + pointwise(weights, name + "axial_shift.conv3", y)
    y = F.gelu(pointwise(weights, name + "mlp.fc1", whole_norm(weights, name + "norm2", x)))
    return x + pointwise(weights, name + "mlp.fc2", y)


def asmlp_logits(weights: Weights, image: Tensor) -> Tensor:
    x = F.conv2d(image, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=4)
    x = whole_norm(weights, "patch_embed.norm", x)
    for stage in range(4):
        block = 0
        while f"layers.{stage}.blocks.{block}.norm1.weight" in weights:
            x = axial_block(weights, f"layers.{stage}.blocks.{block}.", x)
            block += 1
        if stage < 3:
            # pixel_unshuffle puts the channel first and the place in its 2x2 square last: theirs is the other way round
            y = (
                F.pixel_unshuffle(x, 2)
                .reshape(1, -1, 2, 2, x.shape[2] // 2, x.shape[3] // 2)
                .permute(0, 3, 2, 1, 4, 5)
                .flatten(1, 3)
            )
            y = whole_norm(weights, f"layers.{stage}.downsample.norm", y)
            x = pointwise(weights, f"layers.{stage}.downsample.reduction", y)
    return F.linear(whole_norm(weights, "norm", x).mean((2, 3)), weights["head.weight"], weights["head.bias"])


@pytest.mark.parametrize("name", ASMLP_PARAMETERS)
def test_asmlp_equals_the_restatement(name: str, parity: Any) -> None:
    weights = {key: value.double() for key, value in parity.state_dict(name).items()}
    image = parity.image(64, 96).double()
    model = loaded(name, weights)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 3) == ASMLP_PARAMETERS[name]
    with torch.no_grad():
        expected = asmlp_logits(weights, image)
        assert (model(image) - expected).norm() <= 1e-9 * expected.norm()


ACTIVEMLP_PARAMETERS = {"activemlp_small": 38.631, "activemlp_base": 52.155, "activemlp_large": 76.238}
ACTIVEMLP_SHARES = (2, 4, 4, 8)


def actively_mixed(weights: Weights, name: str, x: Tensor, offsets: Tensor) -> Tensor:
    across, down = offsets.permute(0, 3, 1, 2).chunk(2, 1)
    pairs = {"atm_w": torch.stack([torch.zeros_like(across), across], 2), "atm_h": torch.stack([down, 0 * down], 2)}
    branches = []
    for branch, offset in pairs.items():
        layer = (weights[f"{name}.{branch}.weight"], weights[f"{name}.{branch}.bias"])
        out = deform_conv2d(x.permute(0, 3, 1, 2).contiguous(), offset.flatten(1, 2), *layer)
        branches.append(out.permute(0, 2, 3, 1))
    maps = torch.stack([*branches, linear(weights, name + ".atm_c", x)])
    votes = two_layers(weights, name + ".fusion", maps.sum(0).mean((1, 2)))
    shares = votes.reshape(x.shape[0], -1, 3).softmax(2)
    return linear(weights, name + ".proj", torch.einsum("kbijc,bck->bijc", maps, shares))


def activemlp_logits(weights: Weights, image: Tensor) -> Tensor:
    x = F.conv2d(image, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=4, padding=2)
    x = x.permute(0, 2, 3, 1)
    for stage, share in enumerate(ACTIVEMLP_SHARES):
        block = 0
        while f"blocks.{stage}.{block}.norm1.weight" in weights:
            at = f"blocks.{stage}.{block}."
            if at + "offset_layer.0.weight" in weights:  # which blocks make offsets, the keys say
                kernel, bias = (weights[f"pos_blocks.{stage}.proj.{part}"] for part in ("weight", "bias"))
                around = F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding=1, groups=x.shape[-1])
                x = x + around.permute(0, 2, 3, 1)
                made = linear(weights, at + "offset_layer.1", layer_norm(weights, at + "offset_layer.0", x))
                offsets = made.repeat_interleave(share, -1)
            x = x + actively_mixed(weights, at + "atm", layer_norm(weights, at + "norm1", x), offsets)
            x = x + two_layers(weights, at + "mlp", layer_norm(weights, at + "norm2", x))
            block += 1
            if (conv := f"{at}downsample.proj") + ".weight" in weights:
                kernel, bias = weights[conv + ".weight"], weights[conv + ".bias"]
                x = F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, stride=2, padding=1).permute(0, 2, 3, 1)
    return linear(weights, "head", layer_norm(weights, "norm", x).mean((1, 2)))


@pytest.mark.parametrize("name", ACTIVEMLP_PARAMETERS)
def test_activemlp_equals_the_restatement(name: str, parity: Any) -> None:
    weights = {key: value.double() for key, value in parity.state_dict(name).items()}
    image = parity.image(64, 96).double()
    model = loaded(name, weights)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 3) == ACTIVEMLP_PARAMETERS[name]
    with torch.no_grad():
        expected = activemlp_logits(weights, image)
        assert (model(image) - expected).norm() <= 1e-9 * expected.norm()
