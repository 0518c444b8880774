"""What can be refused before torch is imported: data of another task, and a place that cannot be written."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from cyclemlp.data.folders import outside_allowed
from cyclemlp.data.formats.registry import all_formats, any_format_of, recognised
from cyclemlp.errors import ConfigError, DataError, MissingExtraError
from cyclemlp.files import check_writable
from cyclemlp.tasks.options import RunConfig
from cyclemlp.tasks.registry import AnyTask, get_task, task_names
from cyclemlp.tasks.run_names import RUNS

_PACKAGES = {"mlflow": ("mlflow", "sqlalchemy", "alembic"), "wandb": ("wandb",)}
"""What loggers need that are extras."""


def check_run(task: AnyTask, config: RunConfig) -> None:
    """Raise DataError or ConfigError where a run of `task` cannot begin; takes no time."""
    with outside_allowed(config.allow_outside):
        check_folder(task, config.data)
    if config.overwrite and (config.resume or config.out is None):
        other = "--resume continues one: give one of them" if config.resume else "needs its folder: give --out as well"
        raise ConfigError(f"--overwrite replaces a run, and {other}")
    check_loggers(config.recording.logger)
    check_writable(config.out or RUNS)


def check_loggers(names: Sequence[str]) -> None:
    """Raise MissingExtraError where the packages of a logger are not installed."""
    for name in names:
        for package in _PACKAGES.get(name, ()):
            found = find_spec(package)
            if found is None or found.origin is None:  # a folder of that name, such as wandb/ in a run
                raise MissingExtraError(package, name)


def check_folder(task: AnyTask, folder: Path) -> None:
    """Raise DataError unless `folder` looks like data for `task`. Data for another task is named, with its command."""
    if task.dataset_type is None:
        return
    known = [each for each in all_formats() if each.dataset_type is task.dataset_type]
    if not folder.is_dir() or recognised(folder, known) is not None:
        any_format_of(folder, task.dataset_type)
        return
    if (other := recognised(folder, all_formats())) is not None:
        fitting = [name for name in task_names() if get_task(name).dataset_type is other.dataset_type]
        what = other.layout.partition(" (")[0]
        commands = f"cyclemlp train {fitting[0]} --data {folder}" if fitting else "give a folder with others"
        raise DataError(f"{folder} has labels for another task than {task.name} ({what}): {commands}")
    any_format_of(folder, task.dataset_type)
