"""What reading every file of a data set found, kept so that it is paid once.

An entry is a JSON file in `checks` below the user's cache (`$CYCLEMLP_CACHE`, or `~/.cache/cyclemlp`), one for each
data folder and choice of splits; removing the folder forgets everything. It holds good as long as names, sizes and
times of modification of all files of the data set are the same, and the code that checks them is.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from cyclemlp.data.folders import walk
from cyclemlp.data.formats.registry import AnyDataset
from cyclemlp.data.ground_blocks import GroundPart
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.problems import Problem
from cyclemlp.documents import DocumentError, read_json
from cyclemlp.files import user_cache, write_json

_LOG = logging.getLogger(__name__)
_CODE = Path(__file__).parent


class Remembered(NamedTuple):
    """What was found wrong in the files of a data set, and what was worth a look."""

    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]


def checks_folder() -> Path:
    """Where the entries are."""
    return user_cache() / "checks"


def remember(dataset: AnyDataset, state: str, problems: Sequence[Problem], notes: Sequence[Problem]) -> None:
    """Keep what was found in the files of a data set; `state` is theirs before they were read."""
    entry = {
        "state": state,
        "problems": [_to_json(problem) for problem in problems],
        "notes": [_to_json(note) for note in notes],
    }
    try:
        write_json(_path(dataset), entry)
    except OSError as error:
        _LOG.warning("%s cannot be written (%s), so the data is checked again next time", _path(dataset), error)


def recall(dataset: AnyDataset, state: str) -> Remembered | None:
    """What was found in the files of a data set in this state, if it is known."""
    try:
        entry = read_json(_path(dataset))
        if entry["state"] != state:
            return None
        return Remembered(*(tuple(map(_from_json, entry[name])) for name in ("problems", "notes")))
    except (DocumentError, KeyError, TypeError):  # none, or not one of ours
        return None


def state_of(dataset: AnyDataset) -> str:
    """A digest of names, sizes and times of change of all files below the root, and of those named elsewhere."""
    digest = hashlib.blake2b(f"{version('cyclemlp')} {version('pillow')}".encode(), digest_size=16)
    for root in (_CODE, dataset.root):
        for path in _files_below(root):
            _add(digest, path)
    digest.update(repr(_reading(dataset)).encode())
    for path in _named_files(dataset):
        if not path.is_relative_to(dataset.root):
            _add(digest, path)
    return digest.hexdigest()


def _add(digest: "hashlib.blake2b", path: Path) -> None:
    try:
        found = path.stat()
        state = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    except OSError:
        state = "missing"
    digest.update(os.fsencode(path) + b"\0" + state.encode() + b"\0")


def _files_below(root: Path) -> Iterator[Path]:
    """All files, sorted, without hidden ones; folders that are links are followed once."""
    seen = set()
    for folder, inner, names in walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if not name.startswith(".") and name != "__pycache__")
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _reading(dataset: AnyDataset) -> object:
    """What is not in a file of the data set: which images and blocks a split has, how masks are read, which classes."""
    ways = (
        [(split.palette, split.vectors) for split in dataset.splits.values()]
        if isinstance(dataset, MaskDataset)
        else dataset.classes
    )
    return ways, [
        (name, [os.path.relpath(image, dataset.root) for image in split.images], _blocks(split.part))
        for name, split in dataset.splits.items()
    ]


def _blocks(part: GroundPart | None) -> object:
    """Which blocks of the ground a split has."""
    return None if part is None else (part.blocks.edge, part.blocks.margin, sorted(part.blocks.held_out))


def _named_files(dataset: AnyDataset) -> Iterator[Path]:
    if isinstance(dataset, MaskDataset):
        for masks in dataset.splits.values():
            yield from (*masks.images, *masks.masks)
    else:
        for split in dataset.splits.values():
            yield from split.images


def _path(dataset: AnyDataset) -> Path:
    what = [str(dataset.root.resolve()), type(dataset).__name__, *dataset.splits]
    name = hashlib.blake2b("\0".join(what).encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return checks_folder() / f"{name}.json"


def _to_json(problem: Problem) -> dict[str, str]:
    return {name: str(value) for name, value in vars(problem).items()}


def _from_json(values: dict[str, str]) -> Problem:
    return Problem(Path(values["path"]), values["split"], values["what"], values["fix"])
