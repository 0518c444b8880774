"""CycleMLP: vision backbones made only of MLPs, for masks, boxes and labels at any image size.

    run = cyclemlp.train("segmentation", data="folder", max_time="20m")
    cyclemlp.evaluate(run)
    cyclemlp.predict(run, "photos/", out="predicted")
    cyclemlp.export(run, out="model.onnx")
    cyclemlp.Predictor.load(run).predict("photo.jpg").draw()

Importing this package registers every model with timm, so `timm.create_model("cyclemlp_b1")` works afterwards. Where
torch is not installed, nothing is registered, and exported files still predict.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cyclemlp.errors import CheckpointError, ConfigError, DataError, MissingExtraError, UserError

if TYPE_CHECKING:
    from cyclemlp import models as models
    from cyclemlp import ops as ops
    from cyclemlp.api import (
        evaluate,
        export,
        predict,
        train,
        train_classification,
        train_detection,
        train_instance_segmentation,
        train_segmentation,
    )
    from cyclemlp.inference.predictor import Predictor
    from cyclemlp.models.checkpoints import load_checkpoint
    from cyclemlp.models.forms.lean import lean_, plain_
    from cyclemlp.ops.cycle_fc import CycleFC
    from cyclemlp.training.stopping import TrainingStopped

# The command line imports the models where a command needs them. During `python -m cyclemlp`, argv begins with "-m"
# while the package is imported.
if "_cyclemlp_launcher" not in sys.modules and sys.argv[:1] != ["-m"]:
    try:
        import torch as _torch  # noqa: F401
    except ModuleNotFoundError as _error:
        if _error.name != "torch":  # torch is there and broken
            raise
    else:
        from cyclemlp import models as models
        from cyclemlp import ops as ops

__all__ = [
    "CheckpointError",
    "ConfigError",
    "CycleFC",
    "DataError",
    "MissingExtraError",
    "Predictor",
    "TrainingStopped",
    "UserError",
    "evaluate",
    "export",
    "lean_",
    "load_checkpoint",
    "models",
    "ops",
    "plain_",
    "predict",
    "train",
    "train_classification",
    "train_detection",
    "train_instance_segmentation",
    "train_segmentation",
]

_HOMES = {
    "CycleFC": "cyclemlp.ops.cycle_fc",
    "Predictor": "cyclemlp.inference.predictor",
    "TrainingStopped": "cyclemlp.training.stopping",
    "lean_": "cyclemlp.models.forms.lean",
    "load_checkpoint": "cyclemlp.models.checkpoints",
    "plain_": "cyclemlp.models.forms.lean",
}
"""The modules that the public names come from, where it is not `cyclemlp.api`."""

# `cyclemlp.export` is the function. Python binds the name to the package `export` when that is first imported: here.
import_module("cyclemlp.export")
del globals()["export"]


def __getattr__(name: str) -> Any:
    if name in ("models", "ops"):
        return import_module(f"cyclemlp.{name}")
    if name in __all__:
        return getattr(import_module(_HOMES.get(name, "cyclemlp.api")), name)
    raise AttributeError(f"module 'cyclemlp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
