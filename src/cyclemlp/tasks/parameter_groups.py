"""Which parameters the optimiser moves, and how: decay, learning rates by layer, and parts that stay as they are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from cyclemlp.errors import ConfigError
from cyclemlp.heads.pyramid import PyramidNetwork
from cyclemlp.tasks.base import ParameterGroups, TrainingParts

BACKBONE = "backbone"
"""What `freeze` calls all that comes with a pretrained backbone."""
_TRUNK = "backbone.trunk."
"""Of a `PyramidNetwork`, where its backbone is."""


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


def with_frozen(parts: TrainingParts, patterns: Sequence[str]) -> TrainingParts:
    """The parts of a run with those of the network frozen that `patterns` name. Raises ConfigError as `freeze` does."""
    return replace(parts, eval_mode_modules=[*parts.eval_mode_modules, *freeze(parts.model, patterns)])


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Take the gradients of the parts that `patterns` name; returns the modules that are frozen as a whole.

    A pattern is a module's or parameter's name, or a shell pattern for them, or `backbone`; names inside a backbone
    are those that it has by itself. Raises ConfigError for one that names nothing, and where nothing is left to train.
    """
    if not patterns:
        return []
    names = {_own_name(name): parameter for name, parameter in model.named_parameters()}
    for pattern in patterns:
        for name in _named(model, pattern, names):
            names[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"--freeze {' '.join(patterns)}: nothing is left to train; freeze less")
    return [part for part in model.modules() if _is_frozen(part)]


def _own_name(name: str) -> str:
    """A parameter's name as the backbone alone has it: `stem.0.weight` in a dense network, too."""
    return name.removeprefix(_TRUNK).removeprefix("model.") if name.startswith(_TRUNK) else name


def _is_frozen(part: nn.Module) -> bool:
    parameters = list(part.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _named(model: nn.Module, pattern: str, names: Mapping[str, nn.Parameter]) -> list[str]:
    if pattern == BACKBONE:
        wanted = {id(parameter) for parameter in _backbone_parameters(model)}
        return [name for name, parameter in names.items() if id(parameter) in wanted]
    found = [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")]
    if not found:
        parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
        raise ConfigError(f"--freeze {pattern}: the network has no such part; it has {parts}; or give {BACKBONE}")
    return found


def _backbone_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What a pretrained backbone gives to `model`: neither its classifier nor what a dense network adds to it."""
    if isinstance(model, PyramidNetwork):
        return list(model.backbone.trunk.parameters())
    get_classifier: Callable[[], nn.Module] = model.get_classifier  # type: ignore[assignment]  # as timm's models have it
    classifier = {id(parameter) for parameter in get_classifier().parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in classifier]


def never_decayed(model: nn.Module) -> list[str]:
    """Full names of the parameters the network's parts declare in `no_weight_decay()`."""
    names: list[str] = []
    for prefix, part in model.named_modules():
        declare = getattr(part, "no_weight_decay", None)
        if callable(declare):
            names += [f"{prefix}.{name}" if prefix else name for name in declare()]
    return names
