"""Checkpoints: the authors' files and ours, read strictly or not at all.

Weights that silently did not load cost users of the authors' code 11 AP (their issue 12), so every key of a file is
used, checked, or named in a `CheckpointError`, and a model is touched only after everything has been found to fit.
"""

import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from cyclemlp.errors import CheckpointError
from cyclemlp.ops.cycle_fc import cycle_offsets

_logger = logging.getLogger(__name__)

StateDict = Mapping[str, Tensor]

# Authors' name -> ours. Their `sfc_h` has kernel (1, S): it moves along the width.
_CYCLEMLP_NAMES = (
    (r"^patch_embed\.proj\.", "stem."),
    (r"\.downsample\.proj\.", ".downsample.conv."),
    (r"\.attn\.sfc_h\.", ".token_mixer.along_width."),
    (r"\.attn\.sfc_w\.", ".token_mixer.along_height."),
    (r"\.attn\.mlp_c\.", ".token_mixer.along_channels."),
    (r"\.attn\.", ".token_mixer."),
    (r"\.mlp\.", ".channel_mlp."),
    (r"^head\.", "head.fc."),
)
_LISTED = 6  # keys written out in an error


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load a weight file into `model`, strictly.

    Args:
        model: a CycleMLP or any module with `load_state_dict`.
        path: `.safetensors`, or a torch file holding a state dict, bare or under 'model' or 'state_dict' (also EMA).

    Raises:
        CheckpointError: the file is missing or unreadable, or keys or shapes do not fit; the model is unchanged then.
    """
    state_dict = read_state_dict(Path(path))
    try:
        model.load_state_dict(adapt_state_dict(state_dict, model))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file by name; EMA weights where the file has them. Nothing in the file is executed.

    Raises:
        CheckpointError: no such file, or it holds no state dict.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a readable weight file ({reason})") from None
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f"{path}: holds no state dict; expected tensors by name, or under 'model' or 'state_dict'"
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def adapt_state_dict(state_dict: StateDict, model: nn.Module, *, strict: bool = True) -> dict[str, Tensor]:
    """`state_dict` in the names of `model`: the authors' layout renamed, parts the model was built without left out.

    Left out are the classifier of a model with none and stages and norm of a model cut to some feature maps. A first
    convolution for other `in_chans` is adapted as timm does for its own weights, with a line in the log.

    Raises:
        CheckpointError: with `strict`, keys are missing or left over or shapes differ; the error names them.
    """
    adapted = dict(state_dict)
    if is_authors_cyclemlp(adapted):
        adapted = _from_authors(adapted, model)
    _drop_absent_parts(adapted, model)
    _adapt_stem(adapted, model)
    if strict:
        check_fit(adapted, model.state_dict())
    return adapted


def adapt_pretrained(state_dict: StateDict, model: nn.Module) -> dict[str, Tensor]:
    """The `pretrained_filter_fn` of timm: as `adapt_state_dict`, but a classifier for other classes may differ.

    timm drops such a classifier and then loads without strictness, hence the check here.
    """
    adapted = adapt_state_dict(state_dict, model, strict=False)
    own = dict(model.state_dict())
    for key in [key for key in own if key.startswith("head.")]:
        if key in adapted and adapted[key].shape != own[key].shape:
            del own[key]
    check_fit({key: value for key, value in adapted.items() if key in own or not key.startswith("head.")}, own)
    return adapted


def check_fit(given: StateDict, wanted: StateDict) -> None:
    """Raise CheckpointError unless both have the same keys and shapes."""
    faults = []
    if missing := sorted(wanted.keys() - given.keys()):
        faults.append(f"missing {_some(missing)}")
    if left := sorted(given.keys() - wanted.keys()):
        faults.append(f"not in the model {_some(left)}")
    shapes = [
        f"{key} {tuple(given[key].shape)} in the file, {tuple(wanted[key].shape)} in the model"
        for key in sorted(given.keys() & wanted.keys())
        if given[key].shape != wanted[key].shape
    ]
    if shapes:
        faults.append(f"shapes differ: {_some(shapes)}")
    if faults:
        raise CheckpointError(
            "weights do not fit, nothing was loaded: " + "; ".join(faults) + ". Check the model's name and num_classes"
        )


def is_authors_cyclemlp(state_dict: Mapping[str, Any]) -> bool:
    """Whether the keys are those of the authors' CycleMLP_B*.pth files."""
    return any(key.startswith("network.") for key in state_dict)


def to_authors_layout(state_dict: StateDict, stepsize: int = 3) -> dict[str, Tensor]:
    """A CycleMLP B1-B5 state dict of ours under the authors' keys and shapes, with their offset buffers."""
    out = {}
    for key, value in state_dict.items():
        name = re.sub(r"^stages\.(\d+)\.blocks\.", lambda m: f"network.{2 * int(m[1])}.", key)
        name = re.sub(r"^stages\.(\d+)\.downsample\.conv\.", lambda m: f"network.{2 * int(m[1]) - 1}.proj.", name)
        name = name.replace(".token_mixer.along_width.", ".attn.sfc_h.").replace(".token_mixer.", ".attn.")
        name = name.replace(".attn.along_height.", ".attn.sfc_w.").replace(".attn.along_channels.", ".attn.mlp_c.")
        name = name.replace(".channel_mlp.", ".mlp.").replace("head.fc.", "head.")
        name = re.sub(r"^stem\.", "patch_embed.proj.", name)
        if ".sfc_" in name and name.endswith(".weight"):
            step = (1, stepsize) if ".sfc_h." in name else (stepsize, 1)
            out[name.removesuffix("weight") + "offset"] = _offset_buffer(value.shape[1], step)
            value = value[:, :, None, None]
        out[name] = value
    return out


def _from_authors(state_dict: StateDict, model: nn.Module) -> dict[str, Tensor]:
    out = {}
    for key, value in state_dict.items():
        name = re.sub(r"^network\.(\d+)\.", lambda m: _stage_prefix(int(m[1])), key)
        for pattern, ours in _CYCLEMLP_NAMES:
            name = re.sub(pattern, ours, name)
        if name.endswith(".offset"):
            _check_offsets(key, value, model, name.removesuffix(".offset"))
            continue
        out[name] = value.flatten(1) if ".along_" in name and value.ndim == 4 else value
    return out


def _stage_prefix(place: int) -> str:
    # Their list alternates stages (0, 2, 4, 6) and the convolutions between them (1, 3, 5), ours keep both together.
    return f"stages.{place // 2}.blocks." if place % 2 == 0 else f"stages.{place // 2 + 1}.downsample."


def _check_offsets(key: str, offset: Tensor, model: nn.Module, module: str) -> None:
    try:
        stepsize = getattr(model.get_submodule(module), "stepsize", None)
    except AttributeError:
        return  # a layer the model lacks: its weights are named by the check that follows
    if not isinstance(stepsize, tuple):
        return
    wanted = _offset_buffer(offset.numel() // 2, stepsize)
    if offset.numel() != wanted.numel() or not torch.equal(offset.flatten().float(), wanted.flatten()):
        raise CheckpointError(f"{key} does not hold the offsets of step size {stepsize}: another variant of the layer")


def _offset_buffer(channels: int, stepsize: tuple[int, int]) -> Tensor:
    pairs = [cycle_offsets(c, stepsize) for c in range(channels)]
    return torch.tensor(pairs, dtype=torch.float32).reshape(1, -1, 1, 1)


def _drop_absent_parts(state_dict: dict[str, Tensor], model: nn.Module) -> None:
    own = model.state_dict().keys()
    stages = getattr(model, "stages", None)
    if stages is None or not hasattr(model, "num_classes"):
        return
    parts = [f"stages.{s}." for s in range(len(stages), 4)]
    parts += [part for part in ("head.", "norm.") if not any(key.startswith(part) for key in own)]
    for key in [key for key in state_dict if key.startswith(tuple(parts))] if parts else []:
        del state_dict[key]


def _adapt_stem(state_dict: dict[str, Tensor], model: nn.Module) -> None:
    key = "stem.weight" if "stem.weight" in state_dict else "stem.conv.weight"
    in_chans = getattr(model, "in_chans", None)
    if in_chans is None or key not in state_dict or state_dict[key].ndim != 4 or state_dict[key].shape[1] == in_chans:
        return
    _logger.info("%s: %d input channels in the file, adapted to %d", key, state_dict[key].shape[1], in_chans)
    try:
        state_dict[key] = adapt_input_conv(in_chans, state_dict[key])
    except NotImplementedError:
        return  # the shapes are named by the check that follows


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
