"""Ways to run the network in training that leave the result the same: recomputed activations, compilation."""

import logging
from typing import Any

from torch import nn

from cyclemlp.errors import ConfigError
from cyclemlp.models.forms.lean import lean_
from cyclemlp.models.torch_internals import has_compiler
from cyclemlp.tasks.options import RunConfig

_logger = logging.getLogger(__name__)


def accelerate(model: nn.Module, config: RunConfig) -> None:
    """Change `model` in place as `config.machine` asks; the names of its weights stay the same.

    Raises:
        ConfigError: the backbone cannot recompute its activations.
    """
    lean_(model)
    if config.machine.checkpoint_activations:
        checkpoint_activations(model, config.model)
    if config.machine.compile:
        if has_compiler():
            model.compile()
        else:
            _logger.warning("--compile: torch.compile finds no C++ compiler here; training goes on without it")


def checkpoint_activations(model: nn.Module, name: str) -> None:
    """Let the backbone called `name` inside `model` recompute its blocks' activations in the backward pass.

    Raises:
        ConfigError: it does not support this.
    """
    able: list[Any] = [module for module in model.modules() if hasattr(module, "set_grad_checkpointing")]
    try:
        for module in able:
            module.set_grad_checkpointing(True)
    except AssertionError:  # raised by networks of timm that do not support it
        able = []
    if not able:
        raise ConfigError(
            f"--checkpoint-activations: model {name!r} cannot do that; leave it out, or take a cyclemlp_*"
        )
