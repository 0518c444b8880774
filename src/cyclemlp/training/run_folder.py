"""The run folder: begun once, and continued only with the same options."""

from pathlib import Path

import yaml

from cyclemlp.errors import ConfigError, DataError
from cyclemlp.files import JsonObject, write_text
from cyclemlp.tasks.options import RunConfig, flat, resumable_options

CONFIG_NAME = "config.yaml"


def open_run(config: RunConfig) -> Path:
    """Begin the run folder `config.out`, or check that it can be continued; config.yaml is written in both cases.

    Raises ConfigError: the folder is not empty and `resume` is not set, there is no run to resume, or an option
    differs that may not change within a run.
    """
    run_dir, options = config.out, flat(config)
    if config.resume:
        before, resumable = read_run_config(run_dir), resumable_options(type(config))
        for name, value in options.items():
            if name in before and before[name] != value and name not in resumable:
                raise ConfigError(
                    f"--{name} {value} cannot be changed within a run ({run_dir} has {before[name]}): leave it out, or"
                    " begin a new run with another --out"
                )
    elif run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise ConfigError(f"--out {run_dir} exists and is not empty: continue it with --resume, or choose another")
    options["data"] = str(config.data.resolve())  # so that the folder is found from any working directory
    del options["resume"]  # with it, using the file as a recipe would act on the wrong run
    write_text(run_dir / CONFIG_NAME, yaml.safe_dump(options, sort_keys=False))
    return run_dir


def read_run_config(run_dir: Path) -> JsonObject:
    """Options of the run in `run_dir`, by their names on the command line. ConfigError where there are none."""
    path = run_dir / CONFIG_NAME
    if not path.is_file():
        raise ConfigError(
            f"{run_dir} is no run folder: it has no {CONFIG_NAME}, which cyclemlp train writes where it begins a run"
            " without --resume"
        )
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable: {' '.join(str(error).split())}") from error
    if not isinstance(options, dict):
        raise ConfigError(f"{path} holds no options; it was not written by cyclemlp train")
    return options


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
