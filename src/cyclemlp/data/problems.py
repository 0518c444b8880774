"""What can be wrong with a data set, as all formats report it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a data set: where, what, and what to do about it."""

    path: Path
    split: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path} {self.what}; {self.fix}"


def first_of(problems: Sequence[Problem], root: Path) -> str:
    """The first problem in one line, with the number of further ones and the command that lists them."""
    more = f" (and {len(problems) - 1} more: cyclemlp data {root})" if problems[1:] else ""
    return f"{problems[0]}{more}"
