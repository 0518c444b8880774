"""Names of classes as text files list them, one a line; what all formats check them for."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cyclemlp.data.problems import FileError

CLASSES_NAME = "classes.txt"


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names in a file. Raises FileError for a class without a name and for a name that two classes have."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(path, "is not UTF-8 text", "save it as UTF-8, one class per line") from error
    names = tuple(name.strip() for name in text.strip().splitlines())
    if "" in names:  # dropping it could shift the numbers of the classes after it
        raise FileError(path, "has an empty line between classes", "remove it or name the class")
    refuse_repeated(path, names)
    return names


def refuse_repeated(path: Path, names: Sequence[str]) -> None:
    """Raise FileError for a name that two classes have."""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise FileError(path, f"has {repeated[0]!r} more than once", "give each class a name of its own")


def listed(classes: Sequence[str], shown: int = 6) -> str:
    """`4 classes (a, b, c, d)`; of many classes only the first."""
    more = ", ..." if len(classes) > shown else ""
    return f"{len(classes)} classes ({', '.join(classes[:shown])}{more})"
