"""What lies in a data folder and is not used: counted by reason, so that nothing is left out in silence."""

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from cyclemlp.data.folders import is_system, walk
from cyclemlp.data.images import IMAGE_SUFFIXES
from cyclemlp.data.problems import Problem

_COMPANIONS = frozenset({".xml", ".txt", ".json", ".csv", ".yaml", ".yml", ".md", ".cache"})
"""Suffixes of labels and descriptions, which may be anywhere."""
_FURTHER_KINDS = frozenset({".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".jfif", ".npy", ".npz", ".dcm", ".svg"})
"""Suffixes of images that are not read."""


def unused_files(folder: Path, used: Iterable[Path], split: str = "") -> list[Problem]:
    """One note with the number of files below `folder` that may be data and are not among `used`; none without any.

    Files next to used ones that are no images by their suffix have a note of their own (`cyclemlp.data.inspect`).
    """
    used = frozenset(used)
    known = frozenset(map(_plain, used))
    reasons = by_reason((path for path in _files_below(folder) if _plain(path) not in known), {p.parent for p in used})
    if not reasons:
        return []
    total = sum(map(len, reasons.values()))
    counted = "1 file that is" if total == 1 else f"{total} files that are"
    what = f"has {counted} not used: {summary(reasons, folder)}"
    return [Problem(folder, split, what, "move, mend or remove them, if they belong to the data")]


def _plain(path: Path) -> str:
    """The same for all names of a file with `..` in them; Path.resolve would follow links."""
    return os.path.abspath(path)  # noqa: PTH100


def by_reason(paths: Iterable[Path], folders: Collection[Path] = ()) -> dict[str, list[Path]]:
    """The files that are no plain images, or images out of place, by why they are not used; `folders` are in use."""
    reasons: dict[str, list[Path]] = {}
    for path in paths:
        if (reason := _reason(path, folders)) is not None:
            reasons.setdefault(reason, []).append(path)
    return reasons


def summary(reasons: dict[str, list[Path]], folder: Path) -> str:
    """`4 in folders that are not read (such as a/b.png), 1 link to nothing (x.png)`."""
    return ", ".join(f"{len(paths)} {reason} ({_example(paths, folder)})" for reason, paths in reasons.items())


def _example(paths: list[Path], folder: Path) -> str:
    name = str(paths[0].relative_to(folder)) if paths[0].is_relative_to(folder) else str(paths[0])
    return name if len(paths) == 1 else f"such as {name}"


def _reason(path: Path, folders: Collection[Path]) -> str | None:
    suffix = path.suffix.lower()
    if path.is_symlink() and not path.exists():
        return "by a link that leads nowhere"
    if suffix in _COMPANIONS or not path.is_file():
        return None
    if path.name.startswith("."):
        return "with a hidden name" if suffix in IMAGE_SUFFIXES else None
    if suffix in IMAGE_SUFFIXES:
        return "in places where no images are looked for"
    if path.parent in folders or suffix not in _FURTHER_KINDS:
        return None
    return "of kinds that are not read"


def _files_below(folder: Path) -> Iterator[Path]:
    """All files, sorted, without those of operating systems; links to folders outside are followed once."""
    root, seen = os.path.realpath(folder), set()
    for place, inner, names in walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = [name for name in sorted(inner) if not _is_left_out(Path(place, name), root)]
        yield from (Path(place, name) for name in sorted(names) if not is_system(name))


def _is_left_out(folder: Path, root: str) -> bool:
    """Hidden folders and those of operating systems, and links to what is met by its own name."""
    inside = folder.is_symlink() and os.path.realpath(folder).startswith(root + os.sep)
    return folder.name.startswith(".") or is_system(folder.name) or inside
