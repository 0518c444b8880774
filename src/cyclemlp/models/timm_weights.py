"""Weights that timm knows for its models: from the Hugging Face hub, its cache on this machine, or a local file.

timm itself puts them into the network: it renames, resamples and adapts what its networks need. Nothing in a local file
is executed. A first convolution for other numbers of channels is adapted by timm's rule (`adapt_input_conv`): for one
channel the weights of red, green and blue are added up; for more they are repeated in turn and scaled by 3 / channels.
"""

import logging
import pickle
from collections.abc import Mapping
from typing import Any

import timm
from safetensors import SafetensorError
from timm.models import adapt_input_conv
from torch import Tensor, nn

from cyclemlp.errors import CheckpointError, reason_of
from cyclemlp.models.classifiers import is_built_for_one_size
from cyclemlp.models.layouts import StateDict

_COLOURS = 3
_UNREADABLE = (OSError, RuntimeError, ValueError, LookupError, EOFError, SafetensorError, pickle.UnpicklingError)
"""What timm and the hub's library raise where there is no network, no such file, or a damaged one."""
_logger = logging.getLogger(__name__)


def is_of_timm(name: str) -> bool:
    """Whether a model is timm's own, not of this package."""
    return not str(timm.model_entrypoint(name.split(".")[0]).__module__).startswith("cyclemlp.")


def pretrained_classifier(name: str, *, in_chans: int, image_size: int | None) -> nn.Module:
    """The classifier with the weights that timm has for it, on the CPU.

    Raises CheckpointError, in one line, where there are none, or where neither the cache nor the hub has them.
    """
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        raise CheckpointError(
            f"--init pretrained: timm has no weights for {name}: give --init FILE, leave --init out, or choose a model"
            " for which `cyclemlp models NAME` shows some"
        )
    place = cfg.hf_hub_id or cfg.url
    _logger.info("weights of %s: %s, which is downloaded unless it is in %s", name, place, _cache())
    try:
        return _created(name, image_size, pretrained=True, in_chans=in_chans)
    except _UNREADABLE as error:
        hub = f"https://huggingface.co/{cfg.hf_hub_id}" if cfg.hf_hub_id else cfg.url
        raise CheckpointError(
            f"--init pretrained: the weights of {name} could not be loaded; looked for in {_cache()} and at {hub}:"
            f" download model.safetensors there on another machine and give --init FILE ({reason_of(error)})"
        ) from error


def classifier_with(name: str, weights: StateDict, *, in_chans: int, image_size: int | None) -> nn.Module:
    """The classifier of timm's with the weights of a file in timm's layout or in its authors'.

    Raises CheckpointError where they do not fit.
    """
    cfg = timm.get_pretrained_cfg(name)
    classifier = classifier_names(name)[:1]
    rows = [len(weights[key]) for each in classifier if (key := f"{each}.weight") in weights]
    overlay: dict[str, Any] = {"state_dict": dict(weights), "num_classes": rows[0] if rows else 0}
    if cfg is None:
        raise CheckpointError(f"timm has no configuration of {name}, by which its weights are read")
    options = {"pretrained_cfg_overlay": overlay, "num_classes": overlay["num_classes"]}
    try:
        return _created(name, image_size, pretrained=True, in_chans=in_chans, **options)
    except (RuntimeError, KeyError, AttributeError, ValueError, TypeError, AssertionError) as error:
        raise CheckpointError(f"weights do not fit {name}, nothing was loaded: {reason_of(error)}") from error


def classifier_names(name: str) -> tuple[str, ...]:
    """The names of the last layers of a model of timm's."""
    cfg = timm.get_pretrained_cfg(name)
    names = None if cfg is None else cfg.classifier
    return (names,) if isinstance(names, str) else tuple(names or ())


def adapt_first_convolution(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`given` with a convolution on three channels made into one on as many as `own` has, by timm's rule.

    It is found by its shape: no other weight of a network differs in its input channels alone.
    """
    adapted = dict(given)
    for key, weight in given.items():
        there, here = list(weight.shape), list(own[key].shape if key in own else weight.shape)
        others_equal = len(there) == len(here) == 4 and there[:1] + there[2:] == here[:1] + here[2:]
        if others_equal and there[1] == _COLOURS != here[1]:
            _logger.info("%s: 3 input channels adapted to %d by timm's rule (adapt_input_conv)", key, here[1])
            adapted[key] = adapt_input_conv(here[1], weight)
    return adapted


def _created(name: str, image_size: int | None, **options: Any) -> nn.Module:
    if image_size is not None and is_built_for_one_size(name):
        options["img_size"] = image_size
    return timm.create_model(name, **options)


def _cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)
