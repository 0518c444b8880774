"""From options by name, as a script, a recipe or an earlier run gives them, to the config of a run."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cyclemlp.errors import ConfigError, did_you_mean
from cyclemlp.tasks.options import RunConfig
from cyclemlp.tasks.recipes import read_recipe
from cyclemlp.tasks.registry import get_task

OptionValue = str | int | float | bool | Path | Sequence[str] | Sequence[float] | None

DataclassT = TypeVar("DataclassT")


def build_config(task: str, options: Mapping[str, OptionValue], recipe: str | None = None) -> RunConfig:
    """The config of a run of `task` with these options, by their names on the command line with - or _.

    Options go before those of the recipe. Raises ConfigError for an unknown name, with the nearest one, for a missing
    `data`, and for values of the wrong type or out of range.
    """
    kind = get_task(task).config
    names = list(option_types(kind))
    given = {_checked(name.replace("_", "-"), names): value for name, value in options.items()}
    if recipe is not None:
        given = read_recipe(recipe, names, task) | given
    if given.get("data") is None:
        raise ConfigError("data is missing: give the folder with the training and validation data")
    return _build(kind, given)


def option_types(kind: type) -> dict[str, object]:
    """Every option of a config by its name on the command line, with its type."""
    found: dict[str, object] = {}
    for item, annotation in _typed_fields(kind):
        if isinstance(annotation, type) and is_dataclass(annotation):
            found |= option_types(annotation)
        else:
            found[item.name.replace("_", "-")] = annotation
    return found


def _typed_fields(kind: type) -> list[tuple[Field[object], object]]:
    hints = get_type_hints(kind)
    return [(item, hints[item.name]) for item in fields(kind)]


def _checked(name: str, names: Sequence[str]) -> str:
    if name not in names:
        raise ConfigError(f"unknown option {name!r}.{did_you_mean(name, names)} See cyclemlp train TASK --help")
    return name


def _build(kind: type[DataclassT], given: Mapping[str, object]) -> DataclassT:
    values: dict[str, object] = {}
    for item, annotation in _typed_fields(kind):
        option = item.name.replace("_", "-")
        if isinstance(annotation, type) and is_dataclass(annotation):
            values[item.name] = _build(annotation, given)
        elif option in given and (given[option] is not None or item.default is MISSING):
            values[item.name] = _converted(option, given[option], annotation)
    return kind(**values)


def _converted(option: str, value: object, annotation: object) -> object:
    """`value` as the field of this type holds it. Raises ConfigError where it does not fit."""
    if value is None:
        return None
    for allowed in _alternatives(annotation):
        if (fitting := _fitted(value, allowed)) is not None:
            return fitting
    raise ConfigError(f"--{option} {value!r} is not allowed: {_in_words(annotation)}")


def _alternatives(annotation: object) -> list[object]:
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for part in get_args(annotation) for inner in _alternatives(part)]
    return [annotation]


def _fitted(value: object, allowed: object) -> object:
    """`value` if it is of the type `allowed`, converted where nothing is lost, else None."""
    if get_origin(allowed) is Literal:
        return value if value in get_args(allowed) else None
    if get_origin(allowed) is tuple:
        return _fitted_tuple(value, get_args(allowed))
    if allowed is bool or isinstance(value, bool):
        return value if allowed is bool and isinstance(value, bool) else None
    if allowed is float and isinstance(value, int | float):
        return float(value)
    if allowed is Path and isinstance(value, str | Path):
        return Path(value)
    if allowed is str and isinstance(value, str | int):  # YAML reads `max-time: 300` as a number
        return str(value)
    return value if allowed is int and isinstance(value, int) else None


def _fitted_tuple(value: object, inner: tuple[object, ...]) -> tuple[object, ...] | None:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return None
    length = len(value) if inner[-1] is Ellipsis else len(inner)
    items = [_fitted(item, inner[0]) for item in value]
    return tuple(items) if len(items) == length and None not in items else None


def _in_words(annotation: object) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    parts = []
    for allowed in _alternatives(annotation):
        if get_origin(allowed) is Literal:
            parts.append(f"one of {', '.join(map(str, get_args(allowed)))}")
        elif get_origin(allowed) is tuple:
            parts.append("a list of values")
        elif allowed in words:
            parts.append(words[allowed])
    return " or ".join(parts)
