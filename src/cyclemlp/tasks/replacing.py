"""`--overwrite`: a run is replaced by another, and nothing that is no part of it is deleted."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from cyclemlp.errors import ConfigError
from cyclemlp.files import is_left_over
from cyclemlp.tasks.recipes import CONFIG_NAME, read_run_config
from cyclemlp.tasks.registry import get_task, task_names

LOCK = ".lock"
_FILES = ("run.json", "metrics.csv", "model.safetensors", "model.json", "report.html")
_FOLDERS = {
    "checkpoints": ("last.ckpt", "previous.ckpt", "best.ckpt", "sha256.txt"),
    "tensorboard": ("events.out.tfevents.*",),
}
"""What a run writes, by patterns; torch is not imported for their names. A test compares them with a run."""
_FOLDERS_OF_LIBRARIES = ("mlflow", "wandb")
"""What is in these is written by the loggers of these names, and goes as a whole where the run has made the folder."""
_MADE_BY_RUN = ".cyclemlp"
"""A file in such a folder that says so: a folder of that name may also be one of the user's own."""
ASIDE, UNFINISHED, DROPPED = ".replaced", ".replacing", ".dropping"
"""Folders in a run folder: the run that a new one replaces, the part of it that has been moved so far, and the run
while it is deleted."""
_OPTIONS = {"data", "model", "out", "batch-size", "evaluations"}
"""Of every run, so that a config.yaml of another program is not mistaken for ours."""
_MAX_NAMED = 3


def check_replaceable(run_dir: Path) -> None:
    """Raise ConfigError unless `run_dir` holds a run and nothing else."""
    if not is_run(run_dir):
        raise ConfigError(
            f"--overwrite: {run_dir} is not the folder of a run, so nothing in it is deleted: choose another --out"
        )
    if others := sorted(_others(run_dir)):
        more = f" and {len(others) - _MAX_NAMED} more" if len(others) > _MAX_NAMED else ""
        raise ConfigError(
            f"--overwrite: {run_dir} also holds {', '.join(others[:_MAX_NAMED])}{more}, which this run did not write:"
            " move that away, or choose another --out"
        )


def remove_run(run_dir: Path) -> None:
    """Remove the files of a run that `check_replaceable` has passed, all but its lock.

    Its options go last: what is left where the process is killed can still be replaced.
    """
    for name, patterns in _FOLDERS.items():
        for path in _inside(run_dir / name):
            if _matches(path, patterns):
                path.unlink()
    remove_folders(run_dir)
    for name in _FOLDERS_OF_LIBRARIES:
        if _is_made_by_run(run_dir / name):
            _remove_marked(run_dir / name)
    for path in _inside(run_dir):
        if _matches(path, _written()):
            path.unlink()
    (run_dir / CONFIG_NAME).unlink(missing_ok=True)


def make_library_folder(folder: Path) -> None:
    """Make the folder of a logger's library, and mark it as one that goes with the run; one that is there stays."""
    if not folder.exists():
        folder.mkdir()
        (folder / _MADE_BY_RUN).touch()


def _is_made_by_run(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and (folder / _MADE_BY_RUN).is_file()


def _remove_marked(folder: Path) -> None:
    for path in _inside(folder):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _MADE_BY_RUN:
            path.unlink()
    (folder / _MADE_BY_RUN).unlink()  # last: what is left where the process is killed is still the run's
    folder.rmdir()


def remove_folders(run_dir: Path) -> None:
    """Remove the folders of a run that are empty."""
    for name in (*_FOLDERS, *_FOLDERS_OF_LIBRARIES):
        with suppress(OSError):  # there is none, or a file of the user in it
            (run_dir / name).rmdir()


def remove_begun(run_dir: Path) -> None:
    """Remove what a run has written that has nothing to continue yet, and its folder where nothing else is in it."""
    remove_run(run_dir)
    with suppress(OSError):  # the lock of a run on Windows, or a file of the user
        (run_dir / LOCK).unlink(missing_ok=True)
        run_dir.rmdir()


def is_run(run_dir: Path) -> bool:
    """Whether there are the options of a run in this folder."""
    try:
        return read_run_config(run_dir).keys() >= _OPTIONS
    except ConfigError:
        return False


def _written() -> tuple[str, ...]:
    return (*_FILES, *(name for task in task_names() for name in get_task(task).report_files))


def _others(run_dir: Path) -> Iterator[str]:
    """What is in the folder and was not written by a run: links as well, wherever they lead."""
    for path in _inside(run_dir):
        is_folder = path.is_dir() and not path.is_symlink()
        if is_folder and path.name in (ASIDE, UNFINISHED, DROPPED):
            continue
        if path.name in _FOLDERS_OF_LIBRARIES and _is_made_by_run(path):
            continue
        if is_folder and path.name in _FOLDERS:
            inside = _FOLDERS[path.name]
            yield from (f"{path.name}/{each.name}" for each in _inside(path) if not _matches(each, inside))
        elif not _matches(path, (CONFIG_NAME, LOCK, *_written())):
            yield path.name


def _matches(path: Path, patterns: tuple[str, ...]) -> bool:
    ours = is_left_over(path) or any(fnmatchcase(path.name, pattern) for pattern in patterns)
    return ours and path.is_file() and not path.is_symlink()


def _inside(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in os.scandir(folder)] if folder.is_dir() else []
