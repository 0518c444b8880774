"""Conversion of weight files between the authors' layout and ours; shapes say which model a file belongs to."""

import io
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors.torch import save
from torch import Tensor, nn

from cyclemlp.errors import CheckpointError, ConfigError
from cyclemlp.files import atomic_write
from cyclemlp.models.backbones import check_model_name
from cyclemlp.models.checkpoints import adapt_state_dict, naming, read_state_dict
from cyclemlp.models.layouts import StateDict, to_authors_layout
from cyclemlp.models.timm_weights import is_of_timm

Target = Literal["authors", "safetensors"]


def convert(
    source: Path, target: Path, *, to: Target | None = None, model: str | None = None, stepsize: int = 3
) -> str:
    """Write the weights of `source` to `target` in another layout, completely or not at all; returns the model's name.

    Args:
        source: a file of the authors or of this package that holds a whole classifier.
        target: `.safetensors` for our layout, anything else (`.pth`) for the authors'.
        to: 'authors' or 'safetensors', to check it against the suffix of `target`, which decides otherwise.
        model: the model's name, if it is not to be inferred; an error then says how the file differs from it.
        stepsize: of a CycleMLP; the authors' files hold it in their offset buffers, ours do not.

    Raises:
        CheckpointError: `source` is not readable or fits no model, or the model has no layout of its authors.
        ConfigError: an unknown model, or a suffix that contradicts `to`.
    """
    to = to or ("safetensors" if target.suffix == ".safetensors" else "authors")
    if (target.suffix == ".safetensors") != (to == "safetensors"):
        raise ConfigError(f"--to {to} does not fit {target}: name it .safetensors for safetensors, .pth for authors")
    given = read_state_dict(source)
    with naming(source):
        name, weights = _in_our_names(given, model, stepsize)
        # As bytes, so that a full disk raises the plain OSError that the command line reports.
        content = io.BytesIO()
        if to == "authors":
            torch.save({"model": to_authors_layout(weights, stepsize)}, content)
        else:
            contiguous = {key: value.contiguous() for key, value in weights.items()}
            content.write(save(contiguous, metadata={"format": "pt", "architecture": name}))
    with atomic_write(target) as part:
        part.write_bytes(content.getvalue())
    return name


def _in_our_names(given: StateDict, model: str | None, stepsize: int) -> tuple[str, dict[str, Tensor]]:
    if model is not None:
        check_model_name(model)
        return model, adapt_state_dict(given, _empty(model, given, stepsize))
    for name in timm.list_models():
        if is_of_timm(name):
            continue
        try:
            return name, adapt_state_dict(given, _empty(name, given, stepsize))
        except CheckpointError:
            continue
    raise CheckpointError(
        "fits no CycleMLP, AS-MLP or ActiveMLP classifier of this package; --model NAME shows how it differs from one"
    )


def _empty(name: str, given: StateDict, stepsize: int) -> nn.Module:
    """The network without values, for the number of classes and image channels of the file."""
    head = given.get("head.weight", given.get("head.fc.weight"))
    stems = [given[key] for key in ("patch_embed.proj.weight", "stem.weight", "stem.conv.weight") if key in given]
    options: dict[str, Any] = {"num_classes": 0 if head is None else head.shape[0]}
    if stems and stems[0].ndim == 4:
        options["in_chans"] = stems[0].shape[1]
    if name.startswith("cyclemlp_"):
        options["stepsize"] = stepsize
    with torch.device("meta"):
        return timm.create_model(name, **options)
