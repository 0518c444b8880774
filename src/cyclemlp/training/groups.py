"""Which parameters the optimiser moves, and how: decay, and learning rates by layer."""

from timm.optim import param_groups_weight_decay
from torch import nn

from cyclemlp.training.task import ParameterGroups


def decay_groups(model: nn.Module, weight_decay: float) -> ParameterGroups:
    """Decay on matrices and kernels only; parameters that need no gradient are in no group."""
    groups: ParameterGroups = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=never_decayed(model))
    return groups


def never_decayed(model: nn.Module) -> list[str]:
    """Full names of the parameters the network's parts declare in `no_weight_decay()`."""
    names: list[str] = []
    for prefix, part in model.named_modules():
        declare = getattr(part, "no_weight_decay", None)
        if callable(declare):
            names += [f"{prefix}.{name}" if prefix else name for name in declare()]
    return names
