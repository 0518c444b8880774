"""BatchNorm where a batch holds one value per channel: one image whose last map has one position.

Such a value has no variance, and torch refuses it. The layer then normalises by its running statistics, as it does in
evaluation, and leaves them as they are; every other batch is treated as before.
"""

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_MARK = "normalises_single_values"


def allow_single_values(model: nn.Module) -> None:
    """Let every BatchNorm of `model` with running statistics accept a single value per channel in training."""
    for module in model.modules():
        able = isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
        if able and module.track_running_stats and not hasattr(module, _MARK):
            setattr(module, _MARK, True)
            module.register_forward_pre_hook(_by_running_statistics)
            module.register_forward_hook(_as_before, always_call=True)


def _by_running_statistics(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    if module.training and inputs[0].numel() == inputs[0].shape[1]:
        module.training = False
        setattr(module, _MARK, False)


def _as_before(module: nn.Module, _inputs: tuple[Any, ...], _output: Any) -> None:
    if not getattr(module, _MARK):
        module.training = True
        setattr(module, _MARK, True)
