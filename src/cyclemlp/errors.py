"""Errors a user can cause. The command line turns each into one line and exit status 2, never a traceback.

A message tells three things: what was given, what is allowed, what to do.
"""

import difflib
from collections.abc import Iterable

LONGEST_REASON = 200


class UserError(Exception):
    """The input is wrong; `str(error)` is one line for the user."""

    exit_status = 2


class DataError(UserError):
    """An image, a label file or a data folder is not usable."""


class PartlyFailedError(DataError):
    """Some of many files are not usable; the results of the others are written."""

    exit_status = 3


class CheckpointError(UserError, RuntimeError):
    """A weight file does not fit the model; nothing was loaded."""


class ConfigError(UserError, ValueError):
    """An option or a recipe entry is not allowed."""


class MissingExtraError(UserError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, extra)  # its own arguments, so that it can be sent from a worker process

    def __str__(self) -> str:
        package, extra = self.args
        return f"this needs {package}, which is not installed: pip install 'cyclemlp[{extra}]'"


def reason_of(error: BaseException) -> str:
    """What another library says, in one line of at most 200 characters; the name of the error where it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the nearest allowed name, or an empty string where none is near."""
    names = {name.casefold(): name for name in allowed}
    near = difflib.get_close_matches(given.casefold(), list(names), n=1)
    return f" Did you mean {names[near[0]]!r}?" if near else ""
