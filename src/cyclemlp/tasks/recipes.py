"""Options in YAML files, under their names on the command line: recipes, and the config.yaml of a run."""

import re
from collections.abc import Iterable
from pathlib import Path

from cyclemlp.documents import DocumentError, read_yaml, shown
from cyclemlp.errors import ConfigError, did_you_mean
from cyclemlp.files import JsonObject
from cyclemlp.tasks.option_names import own_spelling, unknown_option

_TASK_NAME = re.compile(r"[a-z][a-z-]{0,40}")

FOLDER = Path(__file__).parents[1] / "recipes"
CONFIG_NAME = "config.yaml"
"""The file in a run folder that holds the options of the run."""
MAX_TEXT = 1000
"""Characters of the name or the value of an option."""


def read_recipe(name: str, allowed: Iterable[str], task: str | None = None) -> JsonObject:
    """Options of a recipe file, or of a recipe that comes with the package, by their names on the command line.

    `crop-size` and `crop_size` are the same, and so are `colour-jitter` and `color-jitter`. `base: NAME` takes the
    options of another recipe first; `task: NAME` says what the recipe trains. Raises ConfigError: no such recipe, not
    YAML, an unknown option or one given twice, or another task.
    """
    path = _find(name)
    options = _with_base(path, ())
    wanted = options.pop("task", task)
    if wanted is not None and not (isinstance(wanted, str) and _TASK_NAME.fullmatch(wanted)):
        raise ConfigError(f"recipe {path} is for the task {shown(wanted)}: give the name of a task, such as detection")
    if task is not None and wanted != task:
        raise ConfigError(f"recipe {path} is for {wanted}: cyclemlp train {wanted} --config {name}")
    names = sorted(allowed)
    for key in options:
        if key not in names:
            hint = unknown_option(key, names) or did_you_mean(key, names)
            raise ConfigError(f"recipe {path}: unknown option {key!r}.{hint} See --help")
    return options


def read_run_config(run_dir: Path) -> JsonObject:
    """Options of the run in `run_dir`, by their names on the command line. ConfigError where there are none."""
    path = run_dir / CONFIG_NAME
    if not path.is_file():
        raise ConfigError(
            f"{run_dir} is no run folder: it has no {CONFIG_NAME}, which cyclemlp train writes where it begins a run"
            " without --resume"
        )
    try:
        options = read_yaml(path)
    except DocumentError as error:
        raise ConfigError(f"{path} is not readable: it {error}") from error
    if not isinstance(options, dict):
        raise ConfigError(f"{path} holds no options; it was not written by cyclemlp train")
    return {"optimizer": "adamw"} | options  # the only one, before runs named theirs


def _with_base(path: Path, above: tuple[Path, ...]) -> JsonObject:
    if path in above:
        raise ConfigError(f"recipe {path} is its own base: {' -> '.join(map(str, (*above, path)))}")
    options = _read(path)
    base = options.pop("base", None)
    if base is None:
        return options
    neighbour = path.with_name(str(base))
    return _with_base(neighbour if neighbour.is_file() else _find(str(base)), (*above, path)) | options


def _read(path: Path) -> JsonObject:
    try:
        content = read_yaml(path)
    except DocumentError as error:
        raise ConfigError(f"recipe {path} is not readable YAML: it {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"recipe {path} must hold lines such as `lr: 0.001`")
    for key, value in content.items():
        if max(len(text) for text in (key, value, "") if isinstance(text, str)) > MAX_TEXT:
            raise ConfigError(f"recipe {path}: {shown(key)} has more than {MAX_TEXT} characters")
    options: JsonObject = {}
    for key, value in content.items():
        name = own_spelling(str(key).replace("_", "-"))
        if name in options:
            raise ConfigError(f"recipe {path}: {name} is given twice, once as {key}: leave one of them out")
        options[name] = value
    return options


def packaged() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def _top_level() -> list[str]:
    """Recipes and, for those in folders, the folder."""
    return list(dict.fromkeys(name if "/" not in name else f"{name.partition('/')[0]}/*" for name in packaged()))


def _find(name: str) -> Path:
    for path in (Path(name), FOLDER / f"{name}.yaml"):
        if path.is_file():
            return path
    raise ConfigError(
        f"--config {name}: no such file.{did_you_mean(name, packaged())} Give a YAML file, or a recipe:"
        f" {', '.join(_top_level())}"
    )
