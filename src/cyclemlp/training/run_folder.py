"""The run folder: begun once, and continued only with the same options."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from cyclemlp.errors import ConfigError, DataError
from cyclemlp.files import JsonObject, is_left_over, remove_left_overs, write_text
from cyclemlp.tasks.options import RunConfig, flat, resumable_options
from cyclemlp.tasks.recipes import CONFIG_NAME, read_run_config

# With these in config.yaml, using it as a recipe would act on the wrong run.
_NOT_SAVED = ("resume",)
LOCK = ".lock"


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
        raise ConfigError(
            f"--out {run_dir} is in use: another process trains there; wait for it, stop it, or choose another"
        ) from error
    with lock:
        for folder in (run_dir, run_dir / "checkpoints"):
            remove_left_overs(folder)
        yield


def open_run(config: RunConfig) -> Path:
    """Begin the run folder `config.out`, or check that it can be continued; config.yaml is written in both cases.

    Raises ConfigError: the folder is not empty and `resume` is not set, there is no run to resume, or an option
    differs that may not change within a run.
    """
    run_dir = config.out
    check_folder(config)
    saved = {name: value for name, value in flat(config).items() if name not in _NOT_SAVED}
    saved["data"] = str(config.data.resolve())  # so that the folder is found from any working directory
    write_text(run_dir / CONFIG_NAME, yaml.safe_dump(saved, sort_keys=False))
    return run_dir


def check_folder(config: RunConfig) -> None:
    """Raise ConfigError where `config.out` cannot be begun, or continued, with these options; nothing is written."""
    run_dir = config.out
    if config.resume:
        _check_same_run(config, read_run_config(run_dir))
    elif run_dir.exists() and (not run_dir.is_dir() or not all(map(_is_of_no_run, run_dir.iterdir()))):
        raise ConfigError(f"--out {run_dir} exists and is not empty: continue it with --resume, or choose another")


def _is_of_no_run(path: Path) -> bool:
    """The lock, and what a process left that was killed before it had written the options: there is no run yet."""
    return path.name == LOCK or is_left_over(path)


def check_same_classes(config: RunConfig) -> None:
    """Raise ConfigError where a run that is continued learnt other ones of the classes."""
    _check_same_run(config, read_run_config(config.out), frozenset({"classes", "ignore-classes", "merge"}))


def _check_same_run(config: RunConfig, before: JsonObject, names: frozenset[str] | None = None) -> None:
    resumable = resumable_options(type(config))
    for name, value in flat(config).items():
        if name in before and before[name] != value and name not in resumable and (names is None or name in names):
            raise ConfigError(
                f"--{name} {_as_typed(value)} cannot be changed within a run ({config.out} has"
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
