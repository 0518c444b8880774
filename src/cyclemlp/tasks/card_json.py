"""From the JSON of a model card to its dataclasses: every key is known, and every value has the type of its field."""

import dataclasses
from collections.abc import Iterator
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from cyclemlp.documents import finite_number, shown, whole_number
from cyclemlp.errors import CheckpointError, did_you_mean
from cyclemlp.files import JsonMapping, JsonObject

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RecordT = TypeVar("RecordT", bound="DataclassInstance")


def from_json(record: type[RecordT], values: JsonMapping, prefix: str = "") -> RecordT:
    """The dataclass from JSON values; `prefix` stands before its keys in the messages of CheckpointError."""
    fields = {item.name: item for item in dataclasses.fields(record)}
    for key in values:
        require(key in fields, f"unknown key {prefix + key!r}.{did_you_mean(key, fields)}")
    missing = [name for name, item in fields.items() if name not in values and not _has_default(item)]
    require(not missing, f"missing {', '.join(missing)}")
    for key, value in values.items():
        require(_fits(value, fields[key].type), f"{prefix}{key} has the wrong type: {shown(value)}")
    given: JsonObject = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return record(**given)


def _has_default(item: "dataclasses.Field[object]") -> bool:
    return item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING


def _fits(value: object, annotation: Any) -> bool:
    """Whether a value read from JSON has the type of a field."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is UnionType:
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        return isinstance(value, list) and all(_fits(one, parts[0]) for one in value)
    plain = {Literal: str, dict: dict}.get(origin, annotation)
    if plain is float:
        return finite_number(value) is not None
    return (
        isinstance(value, plain) and not isinstance(value, bool) and (plain is not int or whole_number(value) == value)
    )


def numbers_in(value: object) -> Iterator[float]:
    """The numbers in JSON values, at any depth."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(each)


def require(condition: bool, complaint: str) -> None:
    """Raise CheckpointError with the complaint unless the condition holds."""
    if not condition:
        raise CheckpointError(f"model card: {complaint}")
