"""Files and folders that appear complete or not at all: written next to their place, then renamed."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclemlp.errors import CheckpointError, ConfigError
from cyclemlp.settings import held

if TYPE_CHECKING:
    from PIL.Image import Image

_NAME_LENGTH = 40
"""Characters of a file's name that its temporary name begins with: names of 255 bytes are allowed."""
_MARK = ".part-"
_LEFT_OVER = re.compile(rf"\..*{re.escape(_MARK)}[a-z0-9_]{{8}}(\.\w+)?", re.DOTALL)
_PROBED_BYTES = 2**20
"""Written where a run will be, to find a full disk, a quota or a limit before the work."""

_verified = ContextVar("verified", default=True)

JsonObject = dict[str, Any]
"""A JSON object; its values are checked where they are read."""
JsonMapping = Mapping[str, Any]
"""The same, read-only."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` when the block succeeds, else remove it.

    The temporary name keeps the suffix because many writers choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem[:_NAME_LENGTH]}{_MARK}", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o666 & ~_umask())  # mkstemp makes the file private
        _sync(part)
        part.replace(path)
        _sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def is_left_over(path: Path) -> bool:
    """Whether a file is what `atomic_write` leaves where its process is killed; or is being written now."""
    return _LEFT_OVER.fullmatch(path.name) is not None and path.is_file()


def remove_left_overs(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder, if it is there; nobody else may write there now."""
    for path in folder.glob(".*"):
        if is_left_over(path):
            path.unlink(missing_ok=True)


def check_writable(path: Path, option: str = "--out") -> None:
    """Raise ConfigError where `path` cannot be made or filled; nothing is left behind."""
    place = path if path.is_dir() else next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(bytes(_PROBED_BYTES))
            probe.flush()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"{option} {path}: cannot write in {place} ({reason}); choose another {option}") from error


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; rename it to `path` when the block succeeds, else remove it.

    Raises FileExistsError if `path` is a folder that is not empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and any(path.iterdir()):
        raise FileExistsError(f"{path} exists and is not empty")
    part = Path(tempfile.mkdtemp(prefix=f".{path.name[:_NAME_LENGTH]}-", dir=path.parent))
    try:
        yield part
        part.chmod(0o777 & ~_umask())
        for folder, _, names in os.walk(part):
            for file in names:
                _sync(Path(folder, file))
            _sync_folder(Path(folder))
        part.replace(path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verified(wanted: bool) -> AbstractContextManager[None]:
    """While the block runs, whether weights and checkpoints are compared with the digests written for them."""
    return held(_verified, wanted)


def check_digest(path: Path, allowed: Collection[str]) -> None:
    """Raise CheckpointError where digests were written for `path` and its content has none of them."""
    if _verified.get() and allowed and sha256_of(path) not in allowed:
        raise CheckpointError(
            f"{path} is damaged: its SHA-256 is not the one that was written with it; copy it again, or use it as it is"
            " with --no-verify"
        )


def user_cache() -> Path:
    """The folder for what can be fetched or computed again: `$CYCLEMLP_CACHE`, or `~/.cache/cyclemlp`."""
    given = os.environ.get("CYCLEMLP_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "cyclemlp"


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with atomic_write(path) as part:
        # Names of files that are no UTF-8 stay the bytes that they are.
        part.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_lines(path: Path, parts: Iterable[str]) -> None:
    """Write pieces of text one after another to `path`, whole or not at all, with one of them in memory at a time."""
    with atomic_write(path) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.writelines(parts)


def json_list(values: Iterable[JsonMapping]) -> Iterator[str]:
    """The pieces of a JSON list with a line for each value."""
    yield "["
    for number, value in enumerate(values):
        yield f"{',' if number else ''}\n{json.dumps(value)}"
    yield "\n]"


def write_json(path: Path, value: JsonMapping) -> None:
    """Write `value` to `path` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a table with comma-separated cells, whole or not at all; rows are taken one at a time."""
    with atomic_write(path) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_png(path: Path, image: "Image") -> None:
    """Write an image; encoded in memory first, since Pillow's own errors do not say when a disk is full."""
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    with atomic_write(path) as part:
        part.write_bytes(encoded.getbuffer())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Without it a name may be lost with the power although the file's content is on disk."""
    if os.name == "nt":
        return  # folders cannot be opened there
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
