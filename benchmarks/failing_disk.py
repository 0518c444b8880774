"""A disk that fails: file operations below a folder are counted, and the k-th of them goes wrong.

Writes, fsyncs, renames and openings are those of Python: its files, its os module, and what is built on them (shutil,
tempfile, pathlib). Libraries in C that write files by themselves are not seen.
"""

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

Fault = Literal["full", "broken", "killed"]
FAULTS: dict[Fault, str] = {
    "full": "ENOSPC: nothing can be written from there on",
    "broken": "EIO: this operation fails, the next ones do not",
    "killed": "SIGKILL: the process ends there",
}
_CREATES = os.O_CREAT | getattr(os, "O_TMPFILE", 0)


class FailingDisk:
    """Counts the operations below `folder`; the one of number `at` meets `fault`, a kill in the middle of a write.

    `before_fault` is called once, just before that, with the disk in order.
    """

    def __init__(self, folder: Path, fault: Fault, at: int, before_fault: Callable[[], None] = lambda: None) -> None:
        self._folder = f"{folder.resolve()}{os.sep}"
        self._fault, self._at, self._before_fault = fault, at, before_fault
        self.count = 0
        self.met = ""
        """The operation that met the fault, such as `write run/metrics.csv`; empty where there were fewer."""
        self._real = (io.open, os.open, os.fsync, os.replace, os.rename, os.sendfile)
        self._paused = False

    @contextmanager
    def in_use(self) -> Iterator["FailingDisk"]:
        """While the block runs, file operations of this process go through this disk."""
        changes: list[tuple[Any, str, Any]] = [
            (builtins, "open", self._open), (io, "open", self._open), (os, "open", self._os_open),
            (os, "fsync", self._fsync), (os, "replace", self._replace), (os, "rename", self._rename),
            (os, "sendfile", self._sendfile),
        ]  # fmt: skip
        with ExitStack() as stack:
            for place, name, function in changes:
                stack.enter_context(patch.object(place, name, function))
            yield self

    def operation(
        self, kind: str, place: object, *, half: Callable[[], object] = int, needs_space: bool = True
    ) -> None:
        """Before each operation: does nothing, raises OSError, or ends the process."""
        path = self._path(place)
        if path is None or self._paused:
            return
        self.count += 1
        if self.count == self._at:
            self._paused = True
            self.met = f"{kind} {path}"
            self._before_fault()
            self._paused = False
            if self._fault == "killed":
                half()
                os.kill(os.getpid(), signal.SIGKILL)
            if self._fault == "broken":
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        if self._fault == "full" and self.count >= self._at and needs_space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def _path(self, place: object) -> str | None:
        """A path or descriptor as a path below the folder, None where it is not there."""
        if isinstance(place, int):
            path = str(Path(f"/proc/self/fd/{place}").readlink())
        elif isinstance(place, str | bytes | os.PathLike):
            path = str(Path(os.fsdecode(place)).absolute())
        else:
            return None
        return path.removeprefix(self._folder) if f"{path}{os.sep}".startswith(self._folder) else None

    def _open(
        self, file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, errors: str | None = None,
        newline: str | None = None, closefd: bool = True, opener: Any = None,
    ) -> Any:  # fmt: skip
        """As the built-in function, with files whose writes are counted."""
        if self._path(file) is None:
            return self._real[0](file, mode, buffering, encoding, errors, newline, closefd, opener)
        writes = bool(set("wxa+") & set(mode))
        if opener is None and not isinstance(file, int):  # otherwise it is opened by `os.open`
            self.operation("open", file, needs_space=writes)
        raw = _CountedFile(self, file, "".join(letter for letter in mode if letter not in "bt"), closefd, opener)
        if buffering == 0:
            return raw
        buffer: Any = io.BufferedRandom if "+" in mode else io.BufferedWriter if writes else io.BufferedReader
        return buffer(raw) if "b" in mode else io.TextIOWrapper(buffer(raw), encoding, errors, newline)

    def _os_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        self.operation("open", path, needs_space=bool(flags & _CREATES))
        return self._real[1](path, flags, mode, dir_fd=dir_fd)

    def _fsync(self, file: Any) -> None:
        self.operation("fsync", file if isinstance(file, int) else file.fileno())
        self._real[2](file)

    def _replace(self, source: Any, target: Any) -> None:
        self.operation("rename", target, needs_space=False)
        self._real[3](source, target)

    def _rename(self, source: Any, target: Any) -> None:
        self.operation("rename", target, needs_space=False)
        self._real[4](source, target)

    def _sendfile(self, target: int, source: int, offset: int, count: int) -> int:
        self.operation("write", target, half=lambda: self._real[5](target, source, offset, count // 2))
        return self._real[5](target, source, offset, count)


class _CountedFile(io.FileIO):
    def __init__(self, disk: FailingDisk, file: Any, mode: str, closefd: bool, opener: Any) -> None:
        self._disk = disk
        super().__init__(file, mode, closefd, opener)

    def write(self, data: Any) -> int:
        part = memoryview(data).cast("B")
        self._disk.operation(
            "write", self.fileno(), half=lambda: super(_CountedFile, self).write(part[: len(part) // 2])
        )
        return super().write(data)
