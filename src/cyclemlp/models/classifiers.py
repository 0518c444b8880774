"""Classifiers: any model that timm knows, ours included, for images of any size that it takes."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import timm
import torch
from torch import nn

from cyclemlp.errors import ConfigError
from cyclemlp.models.backbones import check_model_name
from cyclemlp.models.flops import evaluating

_ANY_SIZE = "cyclemlp_*, activemlp_*, asmlp_*, convnext_*, resnet*, pvt_v2_*"


def create_classifier(
    name: str,
    num_classes: int,
    *,
    image_size: int = 224,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
    pretrained: bool = False,
    model_options: Mapping[str, Any] = MappingProxyType({}),
) -> nn.Module:
    """A timm model from images (N, in_chans, image_size, image_size) to logits (N, num_classes).

    Networks that are built for one image size (MLP-Mixer, ResMLP, gMLP, ViT, Swin) are built for this one and accept
    no other afterwards. `model_options` are arguments of the model itself, such as `stepsize` or `branches`.

    Raises:
        ConfigError: an unknown name, a model without these options, or one that does not take images of this size.
    """
    check_model_name(name)
    _check_options(name, model_options)
    options = {"num_classes": num_classes, "in_chans": in_chans, "pretrained": pretrained, **model_options}
    if drop_path_rate:
        options["drop_path_rate"] = drop_path_rate
    if is_built_for_one_size(name):
        options["img_size"] = image_size
    try:
        return timm.create_model(name, **options)
    except (TypeError, AssertionError, RuntimeError, ValueError) as error:
        raise _does_not_fit(name, image_size, error) from error


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    allowed: Sequence[str] = getattr(timm.model_entrypoint(name.split(".")[0]), "options", ())
    for option in options:
        if option not in allowed:
            takes = f"it takes {', '.join(allowed)}" if allowed else "cyclemlp_* have options"
            raise ConfigError(
                f"model {name!r} has no option {option!r}: {takes}; leave it out, or choose another model"
            )


def is_built_for_one_size(name: str) -> bool:
    """Whether the model takes only images of the size it was built for, according to timm."""
    cfg = timm.get_pretrained_cfg(name)
    return bool(cfg is not None and cfg.fixed_input_size)


def check_image_size(model: nn.Module, name: str, image_size: int) -> None:
    """Raise ConfigError unless `model` takes square images of this size, which is tried with one image."""
    first = next(model.parameters())
    channels = getattr(model, "in_chans", 3)
    image = torch.zeros(1, channels, image_size, image_size, device=first.device, dtype=first.dtype)
    try:
        with evaluating(model), torch.no_grad():
            model(image)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _does_not_fit(name, image_size, error) from error


def check_other_size(name: str, built_for: int, image_size: int) -> None:
    """Raise ConfigError unless a network of this name takes images of `image_size`, for which it was not built."""
    if image_size < 1:
        raise ConfigError(f"--image-size {image_size} is not allowed: 1 or more")
    if is_built_for_one_size(name):
        raise ConfigError(
            f"--image-size {image_size}: {name!r} was built for images of {built_for} pixels and takes no others;"
            f" leave it out. {_ANY_SIZE} take any"
        )


def _does_not_fit(name: str, image_size: int, error: Exception) -> ConfigError:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return ConfigError(
        f"model {name!r} does not take images of {image_size} pixels ({reason}): choose another --image-size (224 is"
        f" what most are built for), or a network for any size: {_ANY_SIZE}"
    )
