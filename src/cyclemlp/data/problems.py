"""What can be wrong with a data set: one mechanism for every format, for training and for `cyclemlp data`.

Code that reads a whole data set adds a Problem to its Findings and goes on. Code that reads a single file raises a
FileError, which names the same four things and becomes a Problem where the reader of the data set catches it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cyclemlp.errors import DataError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set: where it is, what it is, and what to do about it."""

    path: Path
    split: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path} {self.what}; {self.fix}"


class FileError(DataError):
    """A file is unusable. The message is `PATH WHAT; FIX`; `what` and `fix` are readable on their own."""

    def __init__(self, path: Path, what: str, fix: str) -> None:
        super().__init__(f"{path} {what}; {fix}")
        self.path = path
        self.what = what
        self.fix = fix


@dataclass
class Findings:
    """What is wrong with a data set, collected while it is read."""

    problems: list[Problem] = field(default_factory=list)
    """What makes the data set unusable for training."""
    flaws: list[Problem] = field(default_factory=list)
    """Single objects that are left out or cut to their image; training runs without them."""

    def add(self, path: Path, split: str, what: str, fix: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(path, split, what, fix))

    def add_error(self, error: FileError, split: str) -> None:
        """Add the problem that a single file has."""
        self.add(error.path, split, error.what, error.fix)

    def check(self, root: Path) -> None:
        """Raise DataError for the first problem, with the number of further ones; log flaws in one line."""
        if self.problems:
            more = f" (and {len(self.problems) - 1} more: cyclemlp data {root})" if self.problems[1:] else ""
            raise DataError(f"{self.problems[0]}{more}")
        if self.flaws:
            count = len(self.flaws)
            boxes = "1 box is" if count == 1 else f"{count} boxes are"
            _LOG.warning("%s: %s cut to the image or left out (cyclemlp data %s lists them)", root, boxes, root)


def listed(values: Sequence[object], most: int = 5) -> str:
    """The first values for a message, with dots if there are more."""
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")
