"""Whether an image of the validation split is a training image too: scores are then too good."""

import filecmp
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cyclemlp.data.problems import Problem
from cyclemlp.data.sampling import evenly_spaced

_MAX_COMPARED = 2000
"""Validation images, spread evenly, that are compared with every training image of the same length."""
_SKETCHED = 4096
"""Bytes at the beginning and at the end of a file that are compared before all others."""


def repeated_in_val(images: Mapping[str, Sequence[Path]]) -> list[Problem]:
    """A note where files of `val` hold the same bytes as files of `train`, by name of the split; at most one."""
    compared = evenly_spaced(list(dict.fromkeys(images.get("val", ()))), _MAX_COMPARED)
    lengths = {length for path in compared if (length := _length(path))}
    sketched: dict[bytes, Path] = {}
    for path in dict.fromkeys(images.get("train", ())):
        if _length(path) in lengths and (sketch := _sketch(path)):
            sketched.setdefault(sketch, path)
    found = {path: same for path in compared if (same := _same(path, sketched)) is not None}
    if not found:
        return []
    first, same = next(iter(found.items()))
    also = f", as {len(found)} of {len(compared)} images of val are" if len(found) > 1 else ""
    what = f"is the same image as {same} of train{also}"
    return [Problem(first, "val", what, "scores will be too good; keep each image in one split")]


def _length(path: Path) -> int:
    with suppress(OSError):  # another check names what cannot be read
        return path.stat().st_size
    return 0


def _sketch(path: Path) -> bytes:
    """Of the length, the beginning and the end; empty for a file that cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        length = _length(path)
        begin = file.read(_SKETCHED)
        file.seek(max(0, length - _SKETCHED))
        return hashlib.blake2b(length.to_bytes(8) + begin + file.read(), digest_size=16).digest()
    return b""


def _same(path: Path, sketched: Mapping[bytes, Path]) -> Path | None:
    other = sketched.get(_sketch(path))
    with suppress(OSError):
        if other is not None and filecmp.cmp(path, other, shallow=False):
            return other
    return None
