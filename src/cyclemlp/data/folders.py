"""Files by their names: how a name in a list or a label file finds the file that it means, and nothing else.

Names are the same text whether their accents are composed (as most systems write them) or decomposed (as macOS does),
and suffixes are the same in upper and lower case. Every folder is listed once. Nothing outside of a data set is read
because a file in it says so; links in its folders are followed, since whoever made them could have copied the files.
"""

import errno
import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path

from cyclemlp.errors import DataError
from cyclemlp.settings import held

_SYSTEM_NAMES = frozenset(
    {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
)
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL})
"""What opening a folder fails with where there is none of that name; any other reason is an error."""
_Names = dict[str, str]
_outside = ContextVar("outside", default=False)


def name_key(stem: str) -> str:
    """Equal for two names that are the same text."""
    return unicodedata.normalize("NFC", stem)


def slashed(name: str) -> str:
    """A name in an annotation file, which Windows may have written."""
    return name if "/" in name else name.replace("\\", "/")


def is_system(name: str) -> bool:
    """Whether an operating system keeps a file or folder of this name for itself; ._NAME is such a file."""
    return name.casefold() in _SYSTEM_NAMES or name.startswith("._") or name == ".DS_Store"


def pair_key(path: Path) -> Path:
    """Equal for the files of a pair: in one folder, with the same name, whatever its form and its suffix."""
    return path.with_name(name_key(path.stem)) if path.stem else path


class Folders:
    """Looks up files by name; a folder is listed the first time that it is asked for."""

    def __init__(self) -> None:
        self._listed: dict[Path, tuple[frozenset[str], _Names]] = {}

    def find(self, path: Path) -> Path | None:
        """The file of this name, or else one in the same folder whose name is the same text; None without any."""
        folder = self._folder(path.parent)
        if folder is None:
            return None
        names, by_key = self._names(folder)
        found = path.name if path.name in names else by_key.get(_file_key(path.name))
        return None if found is None else folder / found

    def _folder(self, folder: Path) -> Path | None:
        if folder in self._listed or _is_folder(folder):
            return folder
        parent = None if folder.parent == folder else self._folder(folder.parent)
        inner = [] if parent is None else sorted(path for path in entries_of(parent) if _is_folder(path))
        return next((path for path in inner if name_key(path.name) == name_key(folder.name)), None)

    def _names(self, folder: Path) -> tuple[frozenset[str], _Names]:
        if folder not in self._listed:
            with _listing(folder), os.scandir(folder) as entries:  # one system call for many files
                names = sorted(entry.name for entry in entries if entry.is_file())
            by_key: _Names = {}
            for name in names:
                by_key.setdefault(_file_key(name), name)
            self._listed[folder] = frozenset(names), by_key
        return self._listed[folder]


def outside_allowed(allowed: bool) -> AbstractContextManager[None]:
    """While the block runs, whether files outside of a data set are read where its annotations name them."""
    return held(_outside, allowed)


def may_read(path: Path, root: Path) -> bool:
    """Whether a path lies in the folder `root` by its name, `..` resolved and links not followed, or need not."""
    if _outside.get():
        return True
    # Path.resolve would follow links.
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))  # noqa: PTH100


def exists(path: Path) -> bool:
    """As `Path.exists`, also for a name that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def files_below(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """The files with one of these suffixes, in any case, in a folder and those in it, sorted.

    Hidden ones are left out, and folders of operating systems, such as that of thumbnails.
    """
    wanted = frozenset(suffixes)
    return sorted(path for path in _walk(folder) if path.suffix.lower() in wanted)


def other_files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """The files directly in a folder with none of these suffixes, sorted, without hidden ones."""
    known = frozenset(suffixes)
    files = [path for path in entries_of(folder) if not path.name.startswith(".") and path.is_file()]
    return sorted(path for path in files if path.suffix.lower() not in known)


def has_file(folder: Path, suffix: str) -> bool:
    """Whether a file with this suffix, in any case, is directly in a folder."""
    return any(path.suffix.lower() == suffix for path in entries_of(folder))


def entries_of(folder: Path) -> list[Path]:
    """What a folder has, in no order; nothing where there is none. Raises DataError where it cannot be listed."""
    try:
        with _listing(folder):
            return list(folder.iterdir())
    except (OSError, ValueError):  # no such folder
        return []


def walk(folder: Path, *, followlinks: bool = False) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk from the top, but a folder that cannot be listed raises DataError instead of counting as empty."""

    def refuse(error: OSError) -> None:
        if error.errno not in _NOT_THERE:
            raise _unlisted(error.filename, error) from error

    return os.walk(folder, onerror=refuse, followlinks=followlinks)


@contextmanager
def _listing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise
        raise _unlisted(folder, error) from error


def _unlisted(folder: Path | str, error: OSError) -> DataError:
    reason = (error.strerror or str(error)).lower()
    return DataError(f"{folder} cannot be listed ({reason}): make it readable, or move it out of the data")


def _walk(folder: Path) -> Iterator[Path]:
    for place, inner, names in walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".") and not is_system(name)]
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _file_key(name: str) -> str:
    path = Path(name)
    return name_key(path.stem) + path.suffix.lower()


def _is_folder(path: Path) -> bool:
    try:
        with _listing(path):
            return path.is_dir()
    except (OSError, ValueError):  # a name that no folder can have
        return False
