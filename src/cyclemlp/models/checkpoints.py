"""Checkpoints: the authors' files and ours, read strictly or not at all.

Weights that silently did not load cost users of the authors' code 11 AP (their issue 12), so every key of a file is
used, checked, or named in a `CheckpointError`, and a model is changed only after everything has been found to fit.
"""

import argparse
import logging
import pickle
import re
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from cyclemlp.documents import shown
from cyclemlp.errors import CheckpointError
from cyclemlp.models.layouts import StateDict, from_authors_layout, is_authors_layout
from cyclemlp.models.timm_internals import FeatureGetterNet

_logger = logging.getLogger(__name__)

MAX_LISTED = 6  # keys named in an error
_ENTRIES = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where a checkpoint may hold its weights, the first that is there before the others."""

# Objects that the authors' training scripts save next to the weights; they become plain containers here. Any other
# class is refused, so nothing in a file is executed.
_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    (OrderedDict, "yacs.config.CfgNode"),
]
# What torch's restricted unpickler raises for damaged bytes, because it does not check its operands.
_UNREADABLE = (
    SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError,
    AssertionError, struct.error, OSError, MemoryError,
)  # fmt: skip


def load_checkpoint(model: nn.Module, path: str | Path, *, other_classes: bool = False) -> None:
    """Load a weight file into `model`, strictly.

    Args:
        model: one of this package, whole or as `features_only`, or any module, for a file of its own state dict.
        path: `.safetensors`, or a torch file holding a state dict, bare or under 'model' or 'state_dict' (also EMA).
        other_classes: let a classifier for other classes than the file's keep its own weights, which is logged.

    Raises:
        CheckpointError: the file is missing or unreadable, or keys or shapes do not fit; the model is unchanged then.
    """
    given: StateDict = read_state_dict(Path(path))
    with naming(path):
        if isinstance(model, FeatureGetterNet):
            model, given = model.model, without_prefix(given)
        adapted = adapt_state_dict(given, model, strict=not other_classes)
        own = model.state_dict()
        for key in _other_classes(adapted, own) if other_classes else ():
            _logger.info("%s: %s in the file, the model keeps its own", key, tuple(adapted[key].shape))
            adapted[key] = own[key]
        model.load_state_dict(adapted)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Let a CheckpointError from inside the block begin with the path of the file."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file by name. Nothing in the file is executed.

    Where a file has weights and their moving average, it is the average, as timm takes it; of the authors' training
    files it is the weights, which are what their main.py scores.

    Raises:
        CheckpointError: no such file, or it holds no state dict.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _torch_content(path)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a readable weight file ({shown(ValueError(reason))})") from None
    if isinstance(content, Mapping):
        content = _weights_in(content, path)
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(
            f"{path}: holds no state dict; expected tensors by name, or under 'model' or 'state_dict'"
        )
    return _without_wrappers(content)


def _weights_in(content: Mapping[Any, Any], path: Path) -> Mapping[Any, Any]:
    """The state dict inside a checkpoint, or `content` itself where it is bare."""
    found = {key: content[key] for key in _ENTRIES if isinstance(content.get(key), Mapping)}
    raw = found.get("model", {})
    if len(found) > 1 and is_authors_layout(_without_wrappers(raw)):
        _logger.info("%s: taking 'model', which its authors score, not the moving average next to it", path)
        return raw
    return next(iter(found.values()), content)


def _without_wrappers(state_dict: Mapping[Any, Any]) -> dict[str, Any]:
    """Without what DistributedDataParallel and torch.compile put before each key."""
    return {str(key).removeprefix("module.").removeprefix("_orig_mod."): value for key, value in state_dict.items()}


def _torch_content(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, which do not matter here
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if not found:
            raise
        raise pickle.UnpicklingError(f"it holds more than tensors: {found[1]}; such code is never run") from None


def adapt_state_dict(state_dict: StateDict, model: nn.Module, *, strict: bool = True) -> dict[str, Tensor]:
    """`state_dict` in the names of `model`: the authors' layout renamed, without the parts that the model lacks.

    A model may lack its classifier, or the stages and the norm after the last feature map in use. A first convolution
    for other `in_chans` is adapted as timm does for its own weights, which is logged.

    Raises:
        CheckpointError: with `strict`, keys are missing or unknown or shapes differ; the error names them.
    """
    adapted = _in_our_layout(state_dict, model)
    _adapt_stem(adapted, model)
    if strict:
        check_fit(adapted, model.state_dict(), getattr(model, "layout_note", ""))
    return adapted


def adapt_pretrained(state_dict: StateDict, model: nn.Module) -> dict[str, Tensor]:
    """The `pretrained_filter_fn` of timm: renames the weights and checks them, because timm itself is lenient.

    Two things may differ: timm adapts the first convolution to other `in_chans`, and drops a classifier for other
    classes, after which it loads without strictness.
    """
    adapted = _in_our_layout(state_dict, model)
    own = dict(model.state_dict())
    for key in _other_classes(adapted, own) + _other_channels(adapted, own):
        own[key] = own[key].new_empty(adapted[key].shape, device="meta")
    check_fit(adapted, own, getattr(model, "layout_note", ""))
    return adapted


def check_fit(given: StateDict, wanted: StateDict, note: str = "") -> None:
    """Raise CheckpointError, which ends with `note`, unless both have the same keys and shapes."""
    shapes = [
        f"{key} {tuple(given[key].shape)} in the file, {tuple(wanted[key].shape)} in the model"
        for key in sorted(given.keys() & wanted.keys())
        if given[key].shape != wanted[key].shape
    ]
    faults = {
        "missing ": sorted(wanted.keys() - given.keys()),
        "not in the model ": sorted(given.keys() - wanted.keys()),
        "shapes differ: ": shapes,
    }
    if found := "; ".join(what + _some(names) for what, names in faults.items() if names):
        note = note or ". Check the model's name and num_classes"
        raise CheckpointError(f"weights do not fit, nothing was loaded: {found}{note}")


def without_prefix(state_dict: StateDict) -> StateDict:
    """Without the `model.` that timm's feature wrapper puts before each key, if that is there."""
    if all(key.startswith("model.") for key in state_dict):
        return {key.removeprefix("model."): value for key, value in state_dict.items()}
    return state_dict


def _in_our_layout(state_dict: StateDict, model: nn.Module) -> dict[str, Tensor]:
    """In the names of `model`, without the stages, norm and classifier that it lacks."""
    own = model.state_dict()
    theirs = is_authors_layout(state_dict) and not is_authors_layout(own)  # Swin and ViT have such keys, too
    adapted = from_authors_layout(state_dict, model) if theirs else dict(state_dict)
    stages = getattr(model, "stages", None)
    if stages is None or not hasattr(model, "num_classes"):
        return adapted
    absent = [f"stages.{s}." for s in range(len(stages), 4)]
    absent += [part for part in ("head.", "norm.") if not any(key.startswith(part) for key in own)]
    return {key: value for key, value in adapted.items() if not key.startswith(tuple(absent))}


def _adapt_stem(state_dict: dict[str, Tensor], model: nn.Module) -> None:
    key, in_chans = _stem_key(state_dict), getattr(model, "in_chans", None)
    weight = state_dict.get(key)
    if in_chans is None or weight is None or weight.ndim != 4 or weight.shape[1] == in_chans:
        return
    _logger.info("%s: %d input channels in the file, adapted to %d", key, weight.shape[1], in_chans)
    with suppress(NotImplementedError):  # the check that follows names the shapes
        state_dict[key] = adapt_input_conv(in_chans, weight)


def _stem_key(state_dict: StateDict) -> str:
    return "stem.weight" if "stem.weight" in state_dict else "stem.conv.weight"


def _other_classes(given: StateDict, own: StateDict) -> list[str]:
    """The classifier's keys, if they differ in the number of classes and in nothing else."""
    keys = [key for key in own if key.startswith("head.") and key in given]
    return [key for key in keys if given[key].shape != own[key].shape and given[key].shape[1:] == own[key].shape[1:]]


def _other_channels(given: StateDict, own: StateDict) -> list[str]:
    """The first convolution's key, if it differs in the channels of the image and in nothing else."""
    key = _stem_key(own)
    shapes = [list(weights[key].shape) for weights in (given, own) if key in weights]
    return [key] if len(shapes) == 2 and shapes[0][:1] + shapes[0][2:] == shapes[1][:1] + shapes[1][2:] else []


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
