"""Where formats have their files: folders of splits, lists of classes, images with the label files of their names."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cyclemlp.data.folders import Folders, name_key, pair_key
from cyclemlp.data.problems import FileError, Findings, listed
from cyclemlp.documents import shown, whole_number

CLASSES_NAME = "classes.txt"
YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml")
"""Usual names of a file that describes folders and classes."""
_TEXT_SUFFIXES = frozenset({".txt", ".xml"})
_NUMBERED = re.compile(r"(\d{1,9})(\s*[:=,;)\t]\s*| +)[^\W\d]")
"""A name that a number precedes: `3: road`."""
_NAMES_OF = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
SPLIT_OF = {name: split for split, names in _NAMES_OF.items() for name in names}
"""The split that each usual name of one means, in lower case."""


def folder_of_split(parent: Path, split: str) -> Path:
    """The folder of a split, under whichever usual name it has there, in any case; by default under the split's own."""
    spellings = ((name, name.capitalize(), name.upper()) for name in _NAMES_OF.get(split, (split,)))
    folders = (parent / each for spelt in spellings for each in spelt)
    return next((folder for folder in folders if folder.is_dir()), parent / split)


def paired(
    label_of: Mapping[Path, Path], labels: Iterable[Path], findings: Findings, folder: Path | None = None
) -> dict[Path, Path]:
    """The images of `label_of`, in `folder`, that have a label file of their own, whether or not it exists, and that.

    A label file is found as `Folders` finds it: an accent may be written in another form, a suffix in another case.
    Images whose names differ by their suffix alone are problems, as are files among `labels` that belong to no image.
    """
    folders = Folders()
    key_of = {image: pair_key(label) for image, label in label_of.items()}
    images_of = Counter(key_of.values())
    for image, key in key_of.items():
        if images_of[key] > 1:
            findings.add(image, "shares its name with another image", "rename one of them")
    used = {image: folders.find(label) or label for image, label in label_of.items() if images_of[key_of[image]] == 1}
    taken = set(used.values())
    for path in labels:
        place = f" to {folder}" if folder else ""
        if (key := pair_key(path)) not in images_of:
            findings.add(path, "has no image", f"add the image{place} or remove the file")
        elif images_of[key] == 1 and path.suffix.lower() in _TEXT_SUFFIXES and path not in taken:
            findings.add(path, "is a second label file of its image", "remove one of the two")
    return used


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; what is not UTF-8 in it names nothing. Raises FileError."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}", "check its permissions") from error
    return text.split("\n")


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names in a file, one a line. Raises FileError for one that is empty or that two classes have."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(path, "is not UTF-8 text", "save it as UTF-8, one class per line") from error
    names = tuple(name.strip() for name in text.strip().splitlines())
    if "" in names:  # dropping it could shift the numbers of the classes after it
        raise FileError(path, "has an empty line between classes", "remove it or name the class")
    refuse_repeated(path, names)
    return names


def refuse_other_numbers(path: Path, names: Sequence[str]) -> None:
    """Raise FileError where all lines of a list begin with numbers, and those are not the numbers of the lines.

    Numbers before a blank may be a part of the name, as in `2 euro`, unless they are those from 0 on in another order.
    """
    found = [match for match in map(_NUMBERED.match, names) if match]
    numbers, lines = [int(match[1]) for match in found], list(range(len(names)))
    meant = any(match[2].strip(" ") for match in found) or sorted(numbers) == lines
    if len(found) == len(names) and meant and numbers != lines:
        what = f"numbers its classes {listed(numbers)}, but the first line is class 0, the second class 1, ..."
        raise FileError(path, what, "write the names alone, each in the line of its number, from 0 on")


def described_names(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in a data.yaml, as a list or a mapping of the numbers from 0 on. Raises FileError."""
    names, count = content["names"], content.get("nc")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            what = f"has names for the classes {listed(list(map(shown, names)))}"
            raise FileError(path, what, "number them 0, 1, 2, ... without a gap")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise FileError(path, f"has the names {shown(names)}", "write a list of the classes' names")
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise FileError(path, f"has the class name {shown(name)}", "write it as text in quotation marks")
    if count is not None and whole_number(count) != len(names):
        raise FileError(path, f"says nc: {shown(count)}, but has {len(names)} names", "correct one of the two")
    classes = tuple(str(name).strip() for name in names)
    refuse_repeated(path, classes)
    return classes


def refuse_repeated(path: Path, names: Sequence[str]) -> None:
    """Raise FileError for a name that two classes have, in whatever form its accents are."""
    if repeated := [name for name, count in Counter(map(name_key, names)).items() if count > 1]:
        raise FileError(path, f"has {repeated[0]!r} more than once", "give each class a name of its own")
