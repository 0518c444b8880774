"""The names and shapes of the weights in the authors' files, translated into ours and back.

CycleMLP (github.com/ShoufaChen/CycleMLP): stages at `network.0/2/4/6`, convolutions between them at `network.1/3/5`,
1x1 kernels in CycleFC with an `offset` buffer next to each. AS-MLP (github.com/svip-lab/AS-MLP): `layers.0..3` with
the merging at the end of a stage, where ours is at the start of the next; every layer is a 1x1 convolution. ActiveMLP
(github.com/microsoft/TokenMixers): `blocks.0..3` with the convolution between stages inside the last block of each, and
the depthwise convolutions of all stages together in `pos_blocks`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cyclemlp.errors import CheckpointError
from cyclemlp.ops.cycle_fc import CycleFC, cycle_offsets

StateDict = Mapping[str, Tensor]

# How keys begin: (theirs, ours), of which the first that fits counts.
_BEGINNINGS = (
    *((f"network.{2 * s}.", f"stages.{s}.blocks.") for s in range(4)),
    *((f"network.{2 * s - 1}.proj.", f"stages.{s}.downsample.conv.") for s in range(1, 4)),
    ("patch_embed.proj.", "stem."),
    ("head.", "head.fc."),
)
_PATCH_BEGINNINGS = (
    *((f"layers.{s}.downsample.", f"stages.{s + 1}.downsample.") for s in range(4)),
    *((f"layers.{s}.", f"stages.{s}.") for s in range(4)),
    ("patch_embed.proj.", "stem.conv."),
    ("patch_embed.norm.", "stem.norm."),
    ("head.", "head.fc."),
)
# The layers inside: (theirs, ours), in this order. CycleMLP's `sfc_h` has kernel (1, S), and AS-MLP's `conv2_1` reads
# along the width.
_LAYERS = (
    (".attn.sfc_h.", ".token_mixer.along_width."),
    (".attn.sfc_w.", ".token_mixer.along_height."),
    (".attn.mlp_c.", ".token_mixer.along_channels."),
    (".attn.", ".token_mixer."),
    (".mlp.", ".channel_mlp."),
)
_AXIAL_LAYERS = (
    (".axial_shift.conv1.", ".token_mixer.proj_in."),
    (".axial_shift.conv2_1.", ".token_mixer.along_width."),
    (".axial_shift.conv2_2.", ".token_mixer.along_height."),
    (".axial_shift.conv3.", ".token_mixer.proj."),
    (".axial_shift.", ".token_mixer."),
    (".mlp.", ".channel_mlp."),
)
_ACTIVE_LAYERS = (
    (".atm.atm_w.", ".token_mixer.along_width."),
    (".atm.atm_h.", ".token_mixer.along_height."),
    (".atm.atm_c.", ".token_mixer.along_channels."),
    (".atm.fusion.", ".token_mixer.reweight."),
    (".atm.", ".token_mixer."),
    (".offset_layer.0.", ".offsets.norm."),
    (".offset_layer.1.", ".offsets.linear."),
    (".mlp.", ".channel_mlp."),
)
_ACTIVE_BLOCK = re.compile(r"(?:blocks|stages)\.(\d)\.(?:blocks\.)?(\d+)\.")

Names = tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]
"""How keys begin, and the layers inside, of one family: pairs of (theirs, ours)."""


def is_authors_layout(state_dict: Mapping[str, Any]) -> bool:
    """Whether the keys are those of the authors' files, of CycleMLP, AS-MLP or ActiveMLP."""
    return any(key.startswith(("network.", "patch_embed.")) for key in state_dict)


def from_authors_layout(state_dict: StateDict, model: nn.Module) -> dict[str, Tensor]:
    """The authors' keys and shapes -> ours; `offset` buffers are checked against the layers of `model` and dropped.

    What has no place in `model` keeps its own name, so that the check of keys that follows reports it.

    Raises:
        CheckpointError: an offset buffer belongs to another step size.
    """
    beginnings, layers = _names(state_dict)
    modules = dict(model.named_modules())
    out = {}
    for key, value in state_dict.items():
        name = _translated(key, beginnings, layers)
        if name.endswith(".offset"):
            weight = state_dict.get(key.removesuffix("offset") + "weight")
            if _offset_is_right(key, value, weight, modules.get(name.removesuffix(".offset"))):
                continue
        pointwise = value.ndim == 4 and value.shape[2:] == (1, 1)
        out[name] = value.flatten(1) if pointwise and not name.startswith("stem.") else value
    return out


def to_authors_layout(state_dict: StateDict, stepsize: int = 3) -> dict[str, Tensor]:
    """Our CycleMLP B1-B5, AS-MLP or ActiveMLP weights under the authors' keys and shapes, for use with their code.

    Args:
        state_dict: of a whole classifier.
        stepsize: of a CycleMLP, for the offset buffers in its authors' files.

    Raises:
        CheckpointError: weights of another model, for which there is no layout of the authors.
    """
    axial = any(".token_mixer.proj_in." in key for key in state_dict)
    if not axial and not any(".token_mixer.reweight." in key for key in state_dict):
        raise CheckpointError(
            "only CycleMLP B1-B5 and nano and AS-MLP and ActiveMLP have a layout of their authors to write"
        )
    beginnings, layers = ([(ours, theirs) for theirs, ours in pairs] for pairs in _names(state_dict))
    out = {}
    for key, value in state_dict.items():
        name = _translated(key, beginnings, layers)
        if ".attn.sfc_" in name and name.endswith(".weight"):
            step = (1, stepsize) if ".sfc_h." in name else (stepsize, 1)
            out[name.removesuffix("weight") + "offset"] = offset_buffer(value.shape[1], step)
        of_convolution = any(layer in name for layer in (".attn.sfc_", ".atm.atm_w.", ".atm.atm_h."))
        pointwise = value.ndim == 2 and (of_convolution or (axial and not name.startswith("head.")))
        out[name] = value[:, :, None, None].contiguous() if pointwise else value
    return out


def offset_buffer(channels: int, stepsize: tuple[int, int]) -> Tensor:
    """The authors' buffer (1, 2 * channels, 1, 1): (di, dj) of each input channel."""
    pairs = [cycle_offsets(c, stepsize) for c in range(channels)]
    return torch.tensor(pairs, dtype=torch.float32).reshape(1, -1, 1, 1)


def _names(state_dict: Mapping[str, Any]) -> Names:
    """Those of the family to which the keys belong, in the authors' layout or in ours."""
    if any(".atm." in key or ".offsets." in key for key in state_dict):
        return _active_beginnings(state_dict), _ACTIVE_LAYERS
    axial = any(".axial_shift." in key or ".token_mixer.proj_in." in key for key in state_dict)
    patches = is_authors_layout(state_dict) and not any(key.startswith("network.") for key in state_dict)
    return _PATCH_BEGINNINGS if axial or patches else _BEGINNINGS, _AXIAL_LAYERS if axial else _LAYERS


def _active_beginnings(state_dict: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The number of the last block of each stage is part of some keys."""
    found = [match for key in state_dict if (match := _ACTIVE_BLOCK.match(key))]
    last = [max((int(match[2]) for match in found if int(match[1]) == s), default=0) for s in range(4)]
    return (
        *((f"blocks.{s}.{last[s]}.downsample.proj.", f"stages.{s + 1}.downsample.conv.") for s in range(3)),
        *((f"blocks.{s}.", f"stages.{s}.blocks.") for s in range(4)),
        *((f"pos_blocks.{s}.proj.", f"stages.{s}.position.conv.") for s in range(4)),
        ("patch_embed.proj.", "stem."),
        ("head.", "head.fc."),
    )


def _translated(key: str, beginnings: Iterable[tuple[str, str]], layers: Iterable[tuple[str, str]]) -> str:
    for old, new in beginnings:
        if key.startswith(old):
            key = new + key.removeprefix(old)
            break
    for old, new in layers:
        key = key.replace(old, new)
    return key


def _offset_is_right(key: str, offset: Tensor, weight: Tensor | None, layer: nn.Module | None) -> bool:
    """False if the model has no CycleFC at this place; an error if it has one of another step size."""
    if not isinstance(layer, CycleFC):
        return False
    # Compared at the width of the weight next to it: if the layer has another, the check of shapes will say so.
    channels = weight.shape[1] if weight is not None and weight.ndim > 1 else layer.in_features
    if not torch.equal(offset.flatten().float(), offset_buffer(channels, layer.stepsize).flatten()):
        raise CheckpointError(
            f"{key} does not hold the offsets of step size {layer.stepsize}, nothing was loaded: "
            "another variant of the layer; build the model with the `stepsize` of the file"
        )
    return True
