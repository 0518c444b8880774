"""The tasks by name. This is the only module outside the task folders that names them.

Adding a task is one folder under `tasks/` and one line in `_TASKS`; a task in another package takes one call of
`register_task`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias, cast

from cyclemlp.errors import ConfigError, did_you_mean
from cyclemlp.tasks.base import Counts, Dataset, Result, Task
from cyclemlp.tasks.options import RunConfig

if TYPE_CHECKING:
    from cyclemlp.tasks.classification.predict import ClassificationResult
    from cyclemlp.tasks.detection.predict import DetectionResult
    from cyclemlp.tasks.segmentation.predict import SegmentationResult

    Prediction: TypeAlias = SegmentationResult | ClassificationResult | DetectionResult
    """What `Predictor.predict` returns, as the task of the model card says."""

AnyTask = Task[RunConfig, Dataset, Result, Counts]

_TASKS = {
    "segmentation": "cyclemlp.tasks.segmentation.task:SegmentationTask",
    "classification": "cyclemlp.tasks.classification.task:ClassificationTask",
    "detection": "cyclemlp.tasks.detection.task:DetectionTask",
    "instance-segmentation": "cyclemlp.tasks.instance_segmentation.task:InstanceSegmentationTask",
}


def register_task(name: str, target: str) -> None:
    """Add a task: `target` is `module:class`, imported when the task is first used. Raises ValueError if it exists."""
    if _TASKS.get(name, target) != target:
        raise ValueError(f"there is a task {name!r} already: {_TASKS[name]}")
    _TASKS[name] = target


def task_names() -> tuple[str, ...]:
    """The names of all tasks."""
    return tuple(_TASKS)


def get_task(name: str) -> AnyTask:
    """The task called `name`. Raises ConfigError, with the nearest name, where there is none."""
    if name not in _TASKS:
        raise ConfigError(f"task {name!r}: allowed are {', '.join(_TASKS)}.{did_you_mean(name, _TASKS)}")
    module, _, attribute = _TASKS[name].partition(":")
    return cast("AnyTask", getattr(import_module(module), attribute)())
