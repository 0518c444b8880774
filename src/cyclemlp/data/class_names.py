"""Names of classes as text files list them, one a line; what all formats check them for."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cyclemlp.errors import DataError

CLASSES_NAME = "classes.txt"


class ClassesError(DataError):
    """The names of the classes are not usable."""

    def __init__(self, path: Path, what: str, fix: str) -> None:
        super().__init__(f"{path} {what}; {fix}")
        self.path = path
        self.what = what
        self.fix = fix


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names in a file. Raises ClassesError where a class has none, or shares it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ClassesError(path, "is not UTF-8 text", "save it as UTF-8, one class per line") from error
    names = tuple(name.strip() for name in text.strip().splitlines())
    if "" in names:  # dropping it could shift the numbers of the classes after it
        raise ClassesError(path, "has an empty line between classes", "remove it or name the class")
    refuse_repeated(path, names)
    return names


def refuse_repeated(path: Path, names: Sequence[str]) -> None:
    """Raises ClassesError for a name that two classes have."""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ClassesError(path, f"has {repeated[0]!r} more than once", "give each class a name of its own")
