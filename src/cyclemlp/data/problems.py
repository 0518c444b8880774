"""What can be wrong with a data set: one mechanism for every format, for training and for `cyclemlp data`.

Code that reads a whole data set adds a Problem to its Findings and goes on. Code that reads a single file raises a
FileError, which names the same four things and becomes a Problem where the reader of the data set catches it.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cyclemlp.data.folders import may_read
from cyclemlp.documents import shown
from cyclemlp.errors import DataError

if TYPE_CHECKING:
    from cyclemlp.data.class_choice import ClassChoice
    from cyclemlp.data.held_out import HoldOut
    from cyclemlp.data.palettes import Palette

Content = TypeVar("Content")

REQUIRED_SPLITS = ("train", "val")
SPLITS = (*REQUIRED_SPLITS, "test")
"""Those that formats with a fixed set of splits look for."""
_LONGEST = 1000
"""Characters of what is wrong."""
MAX_NOTES = 5
"""Of a data set, that are logged in full."""
HOLD_OUT = "give --val-share 0.2 to validate on a fifth of the training images"
"""What to do where there is no validation split."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set: where it is, what it is, and what to do about it."""

    path: Path
    split: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{_printable(self.path)} {_shortened(self.what)}; {self.fix}"


def _shortened(what: str) -> str:
    """Without most of a value of thousands of characters that a damaged file has."""
    return what if len(what) <= _LONGEST else f"{what[:_LONGEST]}..."


def _printable(path: Path) -> str:
    """In one line, and in characters that a terminal can show."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in str(path))


class FileError(DataError):
    """A file is unusable. The message is `PATH WHAT; FIX`; `what` and `fix` are readable on their own."""

    def __init__(self, path: Path, what: str, fix: str) -> None:
        super().__init__(f"{_printable(path)} {_shortened(what)}; {fix}")
        self.path = path
        self.what = what
        self.fix = fix


@dataclass(frozen=True)
class DataRequest:
    """What a data set is read for: training, which needs train and val, or the evaluation of one split."""

    split: str | None = None
    """The only split that has to exist; None for training."""
    classes: tuple[str, ...] = ()
    """The names of a network's classes, for formats that otherwise take theirs from the labels of train."""
    hold_out: "HoldOut | None" = None
    """How images are held out of train for validation, where that is asked for; there is no other val then."""
    palette: "Palette | None" = None
    """The colours of classes that `--palette` gives, or gave for training."""
    label_field: str | None = None
    """The property of areas on a map that names their class."""
    choice: "ClassChoice | None" = None
    """Which classes are counted, where not all are."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that have to exist."""
        if self.hold_out is not None and self.split in (None, "val"):
            return ("train",)
        return REQUIRED_SPLITS if self.split is None else (self.split,)


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
    request: DataRequest = field(default_factory=DataRequest)
    """What the data set is read for."""

    def of(self, split: str) -> "Findings":
        """The same lists for what is found in a split."""
        return replace(self, split=split)

    @property
    def required(self) -> bool:
        """Whether the data set is of no use without the split that is being read."""
        return self.split in self.request.splits

    def add(self, path: Path, what: str, fix: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(path, self.split, what, fix))

    def add_error(self, error: FileError) -> None:
        """Add the problem that a single file has."""
        self.add(error.path, error.what, error.fix)

    def add_missing(self, path: Path, fix: str = "") -> None:
        """Add the problem that the split lacks a folder or file; `fix` replaces what is usually to be done about it."""
        usual = f"put the images of the {self.split} split there"
        if self.request.split is not None:
            usual += ", or evaluate another with --split"
        elif self.split == "val":
            usual = HOLD_OUT
        self.add(path, "is missing", fix or usual)

    def inside(self, path: Path, root: Path, name: str, file: Path) -> bool:
        """Whether `path`, which `file` calls `name`, may be read: a problem where it lies outside of the data set."""
        plain = ".." not in name and not Path(name).is_absolute()  # most are, and the path is not taken apart
        if plain or may_read(path, root):
            return True
        fix = "copy the files into it, or allow it with --allow-outside"
        self.add(file, f"names {shown(name)}, which lies outside of {root}", fix)
        return False

    def attempt(self, read: Callable[[Path], Content], path: Path) -> Content | None:
        """What `read` returns for a file; None, and a problem, if it raises FileError."""
        try:
            return read(path)
        except FileError as error:
            self.add_error(error)
            return None

    def check(self, root: Path) -> None:
        """Raise DataError for the first problem, with the number of further ones; log flaws in one line.

        Where a single split is asked for, problems of the others do not matter.
        """
        split = self.request.split
        problems = [each for each in self.problems if split is None or each.split in ("", split)]
        if problems:
            more = f" (and {len(problems) - 1} more: cyclemlp data {root})" if problems[1:] else ""
            raise DataError(f"{problems[0]}{more}")
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


def with_required(splits: Iterable[str], required: tuple[str, ...] = REQUIRED_SPLITS) -> tuple[str, ...]:
    """The splits that training needs, then the others of these by name."""
    return (*required, *sorted(set(splits) - set(required)))


def listed(values: Sequence[object], most: int = 5) -> str:
    """The first values for a message, with dots if there are more."""
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")


def listed_classes(classes: Sequence[str]) -> str:
    """`4 classes (a, b, c, d)`; of many classes only the first."""
    return f"{len(classes)} classes ({listed(classes, 6)})"
