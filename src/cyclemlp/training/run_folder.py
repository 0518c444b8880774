"""The run folder: begun once, continued only as what it was begun as."""

from pathlib import Path
from typing import Any

import yaml

from cyclemlp.errors import ConfigError
from cyclemlp.files import write_text
from cyclemlp.tasks.options import RESUMABLE_CHANGES, RunConfig, flat

CONFIG_NAME = "config.yaml"
# In config.yaml these would make it act on the wrong run when it is given as a recipe.
_NOT_KEPT = ("resume",)


def open_run(config: RunConfig) -> Path:
    """Begin the run folder `config.out`, or check that it can be continued; config.yaml is written either way.

    Raises ConfigError: something is there already and `resume` is not set, nothing is there to resume, or an option
    differs that may not change within a run.
    """
    run_dir = config.out
    if config.resume:
        _check_same_run(flat(config), read_run_config(run_dir), run_dir)
    elif run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise ConfigError(f"--out {run_dir} exists and is not empty: continue it with --resume, or choose another")
    kept = {name: value for name, value in flat(config).items() if name not in _NOT_KEPT}
    kept["data"] = str(config.data.resolve())  # the folder is found again from anywhere
    write_text(run_dir / CONFIG_NAME, yaml.safe_dump(kept, sort_keys=False))
    return run_dir


def read_run_config(run_dir: Path) -> dict[str, Any]:
    """Options of the run in `run_dir`, by their names on the command line. ConfigError where there is none."""
    path = run_dir / CONFIG_NAME
    if not path.is_file():
        raise ConfigError(
            f"--resume: {run_dir} is no run folder (it has no {CONFIG_NAME}); leave --resume out to begin"
        )
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable: {' '.join(str(error).split())}") from error
    if not isinstance(options, dict):
        raise ConfigError(f"{path} holds no options; it was not written by cyclemlp train")
    return options


def _check_same_run(now: dict[str, Any], before: dict[str, Any], run_dir: Path) -> None:
    for name, value in now.items():
        if name in before and before[name] != value and name not in RESUMABLE_CHANGES:
            raise ConfigError(
                f"--{name} {value} cannot be changed within a run ({run_dir} has {before[name]}): leave it out, or"
                " begin a new run with another --out"
            )
