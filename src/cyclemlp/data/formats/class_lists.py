"""The classes of masks by the files that name them, with or without colours: `classes.txt` and what others call it."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cyclemlp.data.folders import entries_of
from cyclemlp.data.formats.layout import CLASSES_NAME, SPLIT_OF, read_class_names, refuse_other_numbers
from cyclemlp.data.formats.mask_pairs import IMAGE_FOLDERS, MASK_FOLDERS
from cyclemlp.data.palettes import MAX_CLASSES, Palette, parse_palette, read_palette
from cyclemlp.data.problems import FileError, Findings

COLOUR_LISTS = ("class_dict.csv", "label_colors.txt")
"""Usual names of lists with colours."""
_PARENTS = frozenset({*IMAGE_FOLDERS, *MASK_FOLDERS, *SPLIT_OF})
"""Folders that may have a copy of the list, in lower case."""


class ClassList(NamedTuple):
    """What the classes of masks are called, and the colours that stand for them."""

    names: tuple[str, ...] = ()
    """None where nothing names them."""
    palette: Palette | None = None
    """None where the numbers in the masks are the classes."""


def class_list(root: Path, findings: Findings) -> ClassList:
    """The classes that `--palette` gives, or else the files in `root`; none without any or if they are unusable.

    For an evaluation the files come first: `--palette` is then that of the training data.
    """
    given, request = findings.request.palette, findings.request
    if given is not None and request.split is None:
        return ClassList(given.classes, given)
    lists = {path: findings.attempt(_read, path) for path in _paths(root)}
    found = [each for each in lists.values() if each is not None]
    if len(found) < len(lists):
        return ClassList()
    first = found[0] if found else ClassList(given.classes, given) if given is not None else ClassList()
    for path, classes in lists.items():
        if classes != first:
            findings.add(path, f"lists other classes than {next(iter(lists))}", "make them equal, or remove one")
            return ClassList()
    return first


def check_number(path: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names. Raises FileError for too few and too many."""
    if 2 <= len(names) <= MAX_CLASSES:
        return names
    raise FileError(path, f"names {len(names)} classes", "write 2 to 255 names, one per line")


def _paths(root: Path) -> list[Path]:
    """The list in `root`, or else those in folders of images, masks and splits."""
    if (own := list(_in(root))) or not root.is_dir():
        return own[:1]
    parents = sorted(path for path in entries_of(root) if path.name.casefold() in _PARENTS and path.is_dir())
    inner = [path for parent in parents for path in sorted(entries_of(parent)) if path.name.casefold() in _PARENTS]
    return [path for parent in (*parents, *inner) for path in _in(parent)]


def _in(folder: Path) -> Iterable[Path]:
    return (path for path in (folder / name for name in (CLASSES_NAME, *COLOUR_LISTS)) if path.is_file())


def _read(path: Path) -> ClassList:
    """Raises FileError."""
    if path.name != CLASSES_NAME:
        palette: Palette | None = read_palette(path)
    else:
        names = read_class_names(path)
        palette = parse_palette(path, names)
        if palette is None:
            refuse_other_numbers(path, names)
            return ClassList(check_number(path, names))
    assert palette is not None
    return ClassList(palette.classes, palette)
