"""Which parameters the optimiser moves, and how: decay, learning rates by layer, and parts that stay as they are."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from cyclemlp.errors import ConfigError
from cyclemlp.tasks.base import ParameterGroups

BACKBONE = "backbone"
"""What `freeze` calls all but the classifier."""


def decay_groups(model: nn.Module, weight_decay: float) -> ParameterGroups:
    """Decay on matrices and kernels only; parameters that need no gradient are in no group."""
    return param_groups_weight_decay(model, weight_decay, no_weight_decay_list=never_decayed(model))


def layer_groups(model: nn.Module, weight_decay: float, layer_decay: float) -> ParameterGroups:
    """As `decay_groups`, with an `lr_scale` in each group: `layer_decay` to the power of the layers above it.

    timm knows the layers of each of its models; ours say theirs in `group_matcher`.
    """
    if layer_decay == 1.0:
        return decay_groups(model, weight_decay)
    names = never_decayed(model)
    return param_groups_layer_decay(model, weight_decay, no_weight_decay_list=names, layer_decay=layer_decay)


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Take the gradients of the parts that `patterns` name; returns the modules that are frozen as a whole.

    A pattern is a module's or parameter's name, or a shell pattern for them, or `backbone`. Raises ConfigError for
    one that names nothing, and where nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    frozen = {name for pattern in patterns for name in _named(model, pattern, names)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    if patterns and len(frozen) == len(names):
        raise ConfigError(f"--freeze {' '.join(patterns)}: nothing is left to train; freeze less")
    return [part for part in model.modules() if _is_frozen(part)]


def _is_frozen(part: nn.Module) -> bool:
    parameters = list(part.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _named(model: nn.Module, pattern: str, names: Sequence[str]) -> list[str]:
    if pattern == BACKBONE:
        get_classifier: Callable[[], nn.Module] = model.get_classifier  # type: ignore[assignment]  # as timm's models have it
        classifier = {id(parameter) for parameter in get_classifier().parameters()}
        return [name for name, parameter in model.named_parameters() if id(parameter) not in classifier]
    found = [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")]
    if not found:
        parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
        raise ConfigError(f"--freeze {pattern}: the network has no such part; it has {parts}; or give {BACKBONE}")
    return found


def never_decayed(model: nn.Module) -> list[str]:
    """Full names of the parameters the network's parts declare in `no_weight_decay()`."""
    names: list[str] = []
    for prefix, part in model.named_modules():
        declare = getattr(part, "no_weight_decay", None)
        if callable(declare):
            names += [f"{prefix}.{name}" if prefix else name for name in declare()]
    return names
