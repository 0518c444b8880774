"""The images and videos in a folder that is an input, and a note of what else it has, by reason."""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum
from pathlib import Path

from cyclemlp.data.folders import entries_of, is_system, walk
from cyclemlp.errors import ConfigError, DataError


class Reason(StrEnum):
    """Why an entry of a folder is not used, in the order in which the reasons are listed."""

    OTHER_SUFFIX = "with other suffixes"
    HIDDEN_FILE = "with hidden names"
    BROKEN_LINK = "by links that lead nowhere"
    NO_FILE = "that are neither files nor folders"
    HIDDEN_FOLDER = "that are hidden folders or folders of the system"
    LOOP = "by links to folders that they lie in"
    READ_ANYWAY = "by links to folders that are read anyway"
    RESULTS = "that is the folder of the results"
    FOLDER = "that are folders"


_Unused = defaultdict[Reason, list[Path]]
_logger = logging.getLogger(__name__)


def read_folder(
    folder: Path, suffixes: Collection[str], *, recursive: bool = False, out: Path | None = None
) -> list[Path]:
    """The files with one of these suffixes in a folder, sorted; with `recursive` also those in the folders in it.

    What is not used is counted in the log. Links to folders are followed, each folder is read once, and `out` is left
    out. Raises DataError where there is none, ConfigError where `out` is the folder itself.
    """
    unused: _Unused = defaultdict(list)
    used = []
    if recursive and out is not None and out.resolve() == folder.resolve():
        raise ConfigError(f"--out {out} is read by --recursive: choose another folder for the results")
    for entry in _entries_below(folder, out, unused) if recursive else _visible(entries_of(folder)):
        if reason := _reason(entry, suffixes):
            unused[reason].append(entry)
        else:
            used.append(entry)
    if not used:
        raise DataError(_none_in(folder, suffixes, unused, recursive=recursive))
    _note(folder, unused)
    return sorted(used)


def _visible(entries: Iterable[Path]) -> Iterator[Path]:
    """Those that no system keeps for itself, and of the folders those whose names are not hidden."""
    return (path for path in entries if not is_system(path.name) and not (path.name.startswith(".") and path.is_dir()))


def _reason(path: Path, suffixes: Collection[str]) -> Reason | None:
    """Why an entry is not used, None where it is."""
    if path.is_dir():
        return Reason.FOLDER
    if not path.is_file():
        return Reason.NO_FILE if path.exists() else Reason.BROKEN_LINK
    if path.suffix.lower() not in suffixes:
        return Reason.OTHER_SUFFIX
    return Reason.HIDDEN_FILE if path.name.startswith(".") else None


def _entries_below(top: Path, out: Path | None, unused: _Unused) -> Iterator[Path]:
    """All that is in a folder and in those in it; folders that are not read are added to `unused`.

    Folders come before links to folders, which are then found to have been read.
    """
    read: set[Path] = set()
    results = None if out is None else out.resolve()
    tops = [top]
    for start in tops:  # grows
        for place, inner, names in walk(start):
            here = Path(place)
            real = here.resolve()
            if real in read:
                unused[Reason.READ_ANYWAY].append(here)
                inner.clear()
                continue
            read.add(real)
            folders = []
            for path in (here / name for name in sorted(inner)):
                if reason := _reason_of_folder(path, results):
                    unused[reason].append(path)
                elif path.is_symlink():
                    tops.append(path)
                else:
                    folders.append(path.name)
            inner[:] = folders
            yield from _visible(here / name for name in names)


def _reason_of_folder(path: Path, results: Path | None) -> Reason | None:
    """Why a folder is not read, None where it is."""
    if path.name.startswith(".") or is_system(path.name):
        return Reason.HIDDEN_FOLDER
    real = path.resolve()
    if path.is_symlink() and path.parent.resolve().is_relative_to(real):
        return Reason.LOOP
    return Reason.RESULTS if real == results else None


def _none_in(folder: Path, suffixes: Collection[str], unused: _Unused, *, recursive: bool) -> str:
    where = "in it or in a folder below it" if recursive else "directly in it"
    text = f"{folder} has no images or videos {where}: looked for {', '.join(suffixes)}"
    if unused[Reason.FOLDER]:
        return f"{text}. --recursive reads the folders in it ({_example(unused[Reason.FOLDER], folder)})"
    left = _counted(unused, folder)
    return f"{text}; not used: {left}" if recursive and left else text


def _note(folder: Path, unused: _Unused) -> None:
    """Log how many entries are not used, by reason."""
    if counted := _counted(unused, folder):
        hint = "; --recursive reads the folders, too" if unused[Reason.FOLDER] else ""
        _logger.warning("note: not used in %s: %s%s", folder, counted, hint)


def _counted(unused: _Unused, folder: Path) -> str:
    given = ((reason, unused[reason]) for reason in Reason if unused[reason])
    return ", ".join(f"{len(paths)} {reason} ({_example(paths, folder)})" for reason, paths in given)


def _example(paths: list[Path], folder: Path) -> str:
    return f"{'such as ' if paths[1:] else ''}{min(paths).relative_to(folder)}"
