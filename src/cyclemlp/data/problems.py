"""What can be wrong with a data set: one mechanism for every format, for training and for `cyclemlp data`.

Code that reads a whole data set adds a Problem to its Findings and goes on. Code that reads a single file raises a
FileError, which names the same four things and becomes a Problem where the reader of the data set catches it.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from cyclemlp.errors import DataError

Content = TypeVar("Content")

REQUIRED_SPLITS = ("train", "val")
SPLITS = (*REQUIRED_SPLITS, "test")
"""Those that formats with a fixed set of splits look for."""
MAX_NOTES = 5
"""Of a data set, that are logged in full."""

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
    notes: list[Problem] = field(default_factory=list)
    """What is worth a look, but changes nothing."""
    split: str = ""
    """The split that is being read, if any."""

    def of(self, split: str) -> "Findings":
        """The same lists for what is found in a split."""
        return replace(self, split=split)

    @property
    def required(self) -> bool:
        """Whether training needs the split that is being read."""
        return self.split in REQUIRED_SPLITS

    def add(self, path: Path, what: str, fix: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(path, self.split, what, fix))

    def add_error(self, error: FileError) -> None:
        """Add the problem that a single file has."""
        self.add(error.path, error.what, error.fix)

    def add_missing(self, path: Path, fix: str = "") -> None:
        """Add the problem that the split lacks a folder or file; `fix` replaces what is usually to be done about it."""
        usual = f"put the images of the {self.split} split there"
        if self.split == "val":
            usual = "move about every fifth training image and its annotations there"
        self.add(path, "is missing", fix or usual)

    def attempt(self, read: Callable[[Path], Content], path: Path) -> Content | None:
        """What `read` returns for a file; None, and a problem, if it raises FileError."""
        try:
            return read(path)
        except FileError as error:
            self.add_error(error)
            return None

    def check(self, root: Path) -> None:
        """Raise DataError for the first problem, with the number of further ones; log flaws in one line."""
        if self.problems:
            more = f" (and {len(self.problems) - 1} more: cyclemlp data {root})" if self.problems[1:] else ""
            raise DataError(f"{self.problems[0]}{more}")
        if self.flaws:
            count = len(self.flaws)
            boxes = "1 box is" if count == 1 else f"{count} boxes are"
            _LOG.warning("%s: %s cut to the image or left out (cyclemlp data %s lists them)", root, boxes, root)
        log_notes(self.notes, root)


def log_notes(notes: Sequence[Problem], root: Path) -> None:
    """Log the first notes, and the number of further ones."""
    for note in notes[:MAX_NOTES]:
        _LOG.warning("note: %s", note)
    if len(notes) > MAX_NOTES:
        _LOG.warning("and %d more notes: cyclemlp data %s", len(notes) - MAX_NOTES, root)


def with_required(splits: Iterable[str]) -> tuple[str, ...]:
    """The splits that training needs, then the others of these by name."""
    return (*REQUIRED_SPLITS, *sorted(set(splits) - set(REQUIRED_SPLITS)))


def listed(values: Sequence[object], most: int = 5) -> str:
    """The first values for a message, with dots if there are more."""
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")


def listed_classes(classes: Sequence[str]) -> str:
    """`4 classes (a, b, c, d)`; of many classes only the first."""
    return f"{len(classes)} classes ({listed(classes, 6)})"
