"""How `eval` and `predict` find what one task does: a module `VERB_TASK` for each, such as `eval_segmentation`.

A new task is a new module with the names of the protocol (`Evaluation` in `eval.py`, `Prediction` in `predict.py`);
nothing else has to know of it.
"""

from collections.abc import Collection, Mapping
from importlib import import_module
from types import ModuleType

from cyclemlp.errors import ConfigError


def task_module(verb: str, task: str) -> ModuleType:
    """The module that does `verb` for models of this task. Raises ConfigError where there is none."""
    name = f"{__package__}.{verb}_{task.replace('-', '_')}"
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ConfigError(f"{verb} does not know models for {task}: update cyclemlp") from error


def refuse_foreign_options(task: str, taken: Collection[str], given: Mapping[str, object]) -> None:
    """Raise ConfigError for an option that was given, but is not one that this task takes."""
    for name, value in given.items():
        if name not in taken and value not in (None, False):
            raise ConfigError(f"--{name.replace('_', '-')} is not for {task} models: leave it out")
