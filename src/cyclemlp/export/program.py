"""The step all formats share: torch.export, with free batch and, where the network allows, free height and width."""

import logging
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from cyclemlp.errors import ConfigError
from cyclemlp.export.raw import MAX_BATCH, MAX_EDGE, RawNetwork

_EXAMPLE = (2, 320, 448)
"""Batch, height and width that the network is traced at: all different, so that none can stand for another, and large
enough that no map of a pyramid to stride 128 has a single row, which torch.export would treat as a constant."""

_UNEXPORTABLE = (RuntimeError, ValueError, AssertionError, NotImplementedError, TypeError)
"""What torch.export raises where it cannot follow a network; its own errors are subclasses of these."""


def export_program(raw: RawNetwork) -> ExportedProgram:
    """The network as a graph. Raises ConfigError, in one line, where torch.export cannot follow it."""
    example = raw.example(*_EXAMPLE)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about the exporter's own code, not ours
            return torch.export.export(raw.module, (example,), dynamic_shapes=(_free(raw, example),), strict=False)
    except _UNEXPORTABLE as error:
        logging.getLogger(__name__).debug("torch.export failed", exc_info=error)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(
            f"model {raw.facts.card.model!r} cannot be exported: torch.export does not follow it ({reason});"
            " predict with the run folder, or train another --model (cyclemlp_*, asmlp_*, resnet18, resnet50 and"
            " resnet101 export)"
        ) from error


def _free(raw: RawNetwork, example: Tensor) -> dict[int, Any]:
    """The axes of the images that may have other lengths than the example's."""
    axes: dict[int, Any] = {0: Dim("batch", min=1, max=MAX_BATCH)}
    if raw.fixed_size is not None:
        return axes
    rule = raw.facts.size_rule
    for axis, name in ((2, "height"), (3, "width")):
        assert rule.padded(example.shape[axis]) == example.shape[axis]
        if rule.multiple == 1:
            axes[axis] = Dim(name, min=rule.least, max=MAX_EDGE)
        else:
            units = Dim(f"{name}_units", min=rule.least // rule.multiple, max=MAX_EDGE // rule.multiple)
            axes[axis] = rule.multiple * units
    return axes
