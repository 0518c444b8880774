"""What has been predicted so far, a line of JSON for each file, so that an interrupted command can go on."""

import json
from collections.abc import Mapping
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import IO

from cyclemlp.errors import ConfigError
from cyclemlp.files import JsonMapping, JsonObject, write_lines
from cyclemlp.inference.entries import Entries

JOURNAL_NAME = ".predicted.jsonl"
"""In the folder of the results, until all of them are there."""


class Journal:
    """The entries of finished files, by the file's path; each is on the disk as soon as it is added.

    `request` is what all results follow from: with another one, `resume` raises ConfigError. Without `resume` an
    earlier journal is overwritten.
    """

    def __init__(self, out: Path, request: JsonMapping, *, resume: bool) -> None:
        self.path = out / JOURNAL_NAME
        self._mark = sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()
        self._before = Entries()
        self.entries = self._read() if resume else {}
        """The place of each file's line among those of an earlier journal."""
        self._file: IO[str] | None = None

    def add(self, source: str, entry: JsonMapping) -> None:
        """Note a finished file."""
        line = {"source": source, "stamp": _stamp(source), "entry": entry}
        if self._file is None:
            before = chain([{"request": self._mark}], map(self._before.__getitem__, self.entries.values()))
            write_lines(self.path, map(_line, before))  # whole, or the earlier journal stays
            self._file = self.path.open("a", encoding="utf-8")
        self._file.write(_line(line))
        self._file.flush()

    def close(self, *, complete: bool) -> None:
        """Close the file; where nothing is left to do it is removed."""
        if self._file is not None:
            self._file.close()
        if complete:
            self.path.unlink(missing_ok=True)

    def finished(self, source: str, files: Mapping[str, str]) -> JsonObject | None:
        """The entry of an unchanged file whose results still have these names, None where it is to be predicted."""
        noted = self._before[self.entries[source]] if source in self.entries else {}
        entry: JsonObject | None = noted.get("entry")
        if entry is None or noted.get("stamp") != _stamp(source):
            return None
        if any(entry.get(kind) != name or not Path(name).is_file() for kind, name in files.items()):
            return None
        return entry

    def _read(self) -> dict[str, int]:
        """The whole lines of an earlier journal: a process may have been killed within one."""
        if not self.path.is_file():
            return {}
        places: dict[str, int] = {}
        with self.path.open(encoding="utf-8", errors="replace") as file:
            lines = filter(None, map(_parsed, file))
            if next(lines, {}).get("request") != self._mark:
                raise ConfigError(
                    f"--resume: {self.path.parent} was begun with another network or other options: leave --resume"
                    " out, or choose another --out"
                )
            for line in lines:
                if isinstance(line.get("entry"), dict) and isinstance(line.get("source"), str):
                    places[line["source"]] = len(self._before)
                    self._before.append(line)
        return places


def _line(value: JsonMapping) -> str:
    return json.dumps(value) + "\n"


def _stamp(source: str) -> list[int]:
    """Size and time of the last change of a file; nothing where it is gone."""
    try:
        found = Path(source).stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _parsed(line: str) -> JsonObject | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
