"""JSON objects by the thousand, on disk: the results of many images, of which only one is in memory at a time."""

import json
import operator
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Sequence
from typing import overload

from cyclemlp.files import JsonMapping, JsonObject


class Entries(Sequence[JsonObject]):
    """A list of JSON objects that can only grow; each is read from a temporary file whenever it is taken.

    Equal to a list of equal objects. The file has no name on POSIX systems and goes with the last reference.
    """

    def __init__(self, entries: Iterable[JsonMapping] = ()) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the entries are
        weakref.finalize(self, self._file.close)
        self._ends = array("Q")
        for entry in entries:
            self.append(entry)

    def append(self, entry: JsonMapping) -> None:
        """Add an object at the end."""
        data = json.dumps(entry).encode()
        self._file.seek(self._start(len(self._ends)))
        self._file.write(data)
        self._ends.append(self._file.tell())

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> JsonObject: ...

    @overload
    def __getitem__(self, index: slice) -> list[JsonObject]: ...

    def __getitem__(self, index: int | slice) -> JsonObject | list[JsonObject]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        self._file.seek(self._start(place))
        entry: JsonObject = json.loads(self._file.read(self._ends[place] - self._start(place)))
        return entry

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(operator.eq, self, other))

    def __hash__(self) -> int:
        return id(self)

    def _start(self, place: int) -> int:
        return self._ends[place - 1] if place else 0
