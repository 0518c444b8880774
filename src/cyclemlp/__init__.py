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

from cyclemlp.errors import CheckpointError, ConfigError, DataError, UserError

if TYPE_CHECKING:
    from cyclemlp import models as models
    from cyclemlp import ops as ops
    from cyclemlp.api import evaluate as evaluate
    from cyclemlp.api import export as export
    from cyclemlp.api import predict as predict
    from cyclemlp.api import train as train
    from cyclemlp.inference.predictor import Predictor as Predictor
    from cyclemlp.models.checkpoints import load_checkpoint as load_checkpoint
    from cyclemlp.models.forms.lean import lean_ as lean_
    from cyclemlp.models.forms.lean import plain_ as plain_
    from cyclemlp.ops.cycle_fc import CycleFC as CycleFC

if "_cyclemlp_launcher" not in sys.modules:  # the command line imports the models where a command needs them
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
    "Predictor",
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
]

_LAZY = {
    "CycleFC": "cyclemlp.ops.cycle_fc",
    "Predictor": "cyclemlp.inference.predictor",
    "evaluate": "cyclemlp.api",
    "export": "cyclemlp.api",
    "lean_": "cyclemlp.models.forms.lean",
    "load_checkpoint": "cyclemlp.models.checkpoints",
    "plain_": "cyclemlp.models.forms.lean",
    "predict": "cyclemlp.api",
    "train": "cyclemlp.api",
}
# A package that is imported later would replace the function of the same name, so it is imported here.
import_module("cyclemlp.export")
del globals()["export"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name in ("models", "ops"):
        return import_module(f"cyclemlp.{name}")
    raise AttributeError(f"module 'cyclemlp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
