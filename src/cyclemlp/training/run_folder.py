"""The run folder: begun once, and continued only with the same options."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from cyclemlp.errors import ConfigError, DataError, reason_of
from cyclemlp.files import JsonObject, is_left_over, remove_left_overs, write_text
from cyclemlp.tasks.aside import drop, is_waiting, put_back, set_aside
from cyclemlp.tasks.options import RunConfig, flat, resumable_options, saved_options
from cyclemlp.tasks.recipes import CONFIG_NAME, read_run_config
from cyclemlp.tasks.replacing import LOCK, check_replaceable
from cyclemlp.tasks.run_names import default_folders

_logger = logging.getLogger(__name__)


class FolderTakenError(ConfigError):
    """The run folder has a run already, or is in use."""


@contextmanager
def begun(task: str, config: RunConfig) -> Iterator[RunConfig]:
    """Hold the run folder, begun or continued, while the block runs; yields the config with the folder in it.

    Where none is given, it is the first one under the default names that is free, also where two commands look for one
    at the same time. Raises ConfigError as `check_folder` and `locked` do.
    """
    for out in default_folders(task) if config.out is None else [config.out]:
        with ExitStack() as stack:
            chosen = replace(config, out=out)
            try:
                stack.enter_context(_held(chosen))
            except FolderTakenError:
                if config.out is not None:
                    raise
                continue
            if config.out is None:
                _logger.info("the run folder is %s", out)
            yield chosen
            return


@contextmanager
def _held(config: RunConfig) -> Iterator[None]:
    check_folder(config)  # before the lock, which is a file in it
    with locked(config.run_dir):
        try:
            open_run(config)
            yield
        except BaseException:
            _bring_back(config.run_dir)
            raise
        drop(config.run_dir)


def _bring_back(run_dir: Path) -> None:
    """Bring back the run that was to be replaced, unless the new one has a checkpoint."""
    if not is_waiting(run_dir):
        return
    try:
        put_back(run_dir)
    except OSError as error:  # why the run ended is what the user needs to read
        reason = reason_of(error)
        _logger.warning("the replaced run is not back in %s yet (%s): the next command tries again", run_dir, reason)


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Keep other processes out of a run folder, and remove what a killed one left half-written.

    The folder is made if it is not there. Raises ConfigError where it is held already. The lock is the operating
    system's and ends with the process, however that ends; processes that load images do not inherit it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(run_dir / LOCK).acquire(timeout=0)
    except Timeout as error:
        raise FolderTakenError(
            f"--out {run_dir} is in use: another process trains there; wait for it, stop it, or choose another"
        ) from error
    with lock:
        for folder in (run_dir, run_dir / "checkpoints"):
            remove_left_overs(folder)
        yield


def open_run(config: RunConfig) -> Path:
    """Begin the run folder `config.run_dir`, or check that it can be continued; config.yaml is written in both cases.

    With `overwrite` the run that is there is set aside first. Raises ConfigError as `check_folder` does.
    """
    run_dir = config.run_dir
    check_folder(config)
    if config.overwrite and not _is_free(run_dir):
        _logger.info("replacing the run in %s", run_dir)
        set_aside(run_dir)
    saved = saved_options(config)
    saved["data"] = str(config.data.resolve())  # so that the folder is found from any working directory
    write_text(run_dir / CONFIG_NAME, yaml.safe_dump(saved, sort_keys=False))
    return run_dir


def check_folder(config: RunConfig) -> None:
    """Raise ConfigError where the run folder cannot be begun, continued or replaced with these options.

    It is not empty, or not that of a run; there is no run to resume; or an option differs that may not change within a
    run. Nothing is written.
    """
    run_dir = config.run_dir
    if config.resume:
        _check_same_run(config, read_run_config(run_dir))
    elif not _is_free(run_dir):
        if config.overwrite:
            check_replaceable(run_dir)
            return
        run = (run_dir / CONFIG_NAME).is_file()
        advice = (
            "continue it with --resume, replace it with --overwrite, or choose another" if run else "choose another"
        )
        raise FolderTakenError(f"--out {run_dir} exists and is not empty: {advice}")


def _is_free(run_dir: Path) -> bool:
    """Whether a run can begin in this folder without touching what is there."""
    return not run_dir.exists() or (run_dir.is_dir() and all(map(_is_of_no_run, run_dir.iterdir())))


def _is_of_no_run(path: Path) -> bool:
    """The lock, and what a process left that was killed before it had written the options: there is no run yet."""
    return path.name == LOCK or is_left_over(path)


def check_same_classes(config: RunConfig) -> None:
    """Raise ConfigError where a run that is continued learnt other ones of the classes."""
    _check_same_run(config, read_run_config(config.run_dir), frozenset({"classes", "ignore-classes", "merge"}))


def _check_same_run(config: RunConfig, before: JsonObject, names: frozenset[str] | None = None) -> None:
    resumable = resumable_options(type(config))
    for name, value in flat(config).items():
        if name in before and before[name] != value and name not in resumable and (names is None or name in names):
            raise ConfigError(
                f"--{name} {_as_typed(value)} cannot be changed within a run ({config.run_dir} has"
                f" {_as_typed(before[name])}): leave it out, or begin a new run with another --out"
            )


def _as_typed(value: object) -> str:
    """A value as the command line has it."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def training_data(run: Path) -> Path:
    """The data folder of a run, given as its folder or a file in it. Raises DataError where it is unknown."""
    run_dir = run if run.is_dir() else run.parent
    try:
        data = read_run_config(run_dir).get("data")
    except ConfigError as error:
        raise DataError(f"{error}: name the data folder with --data") from error
    if not isinstance(data, str):
        raise DataError(f"{run_dir / CONFIG_NAME} names no data: name a folder with --data")
    return Path(data)
