"""Checks of options: each error names the option as the command line has it, and what is allowed."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

from cyclemlp.errors import ConfigError

if TYPE_CHECKING:
    from cyclopts import App, ArgumentCollection


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def positive(config: object, *names: str) -> None:
    """Raise ConfigError unless these fields of `config` are above 0, or None."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ConfigError(f"{_option(name)} {value} is not allowed: more than 0")


def at_least_zero(config: object, *names: str) -> None:
    """Raise ConfigError unless these fields of `config` are 0 or more, or None."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= 0:
            raise ConfigError(f"{_option(name)} {value} is not allowed: 0 or more")


def at_least(config: object, name: str, least: int) -> None:
    """Raise ConfigError unless this field of `config` is `least` or more, or None."""
    value = getattr(config, name)
    if value is not None and value < least:
        raise ConfigError(f"{_option(name)} {value} is too small: {least} or more")


def within(config: object, name: str, low: float, high: float, *, upper_open: bool = False) -> None:
    """Raise ConfigError unless this field of `config` lies from `low` to `high`, or below it with `upper_open`."""
    value = getattr(config, name)
    if not low <= value <= high or (upper_open and value == high):
        bound = "below" if upper_open else "to"
        raise ConfigError(f"{_option(name)} {value} is not allowed: from {low:g} {bound} {high:g}")


def choice(config: object, name: str, allowed: Iterable[str]) -> None:
    """Raise ConfigError unless this field of `config` is one of `allowed`."""
    value = getattr(config, name)
    if value not in allowed:
        raise ConfigError(f"{_option(name)} {value!r} is not allowed: one of {', '.join(allowed)}")


def refuse_fractions(_app: "App", _commands: tuple[str, ...], arguments: "ArgumentCollection") -> None:
    """Raise ConfigError for a whole number that was given as 2.5: the parser would cut it to 2 without a word."""
    for argument in arguments:
        types = {argument.hint, *get_args(argument.hint)}
        for token in argument.tokens if int in types and float not in types else ():
            if re.fullmatch(r"[+-]?\d*\.\d*[1-9]\d*", token.value):
                raise ConfigError(f"{argument.name} {token.value} is not allowed: a whole number")
