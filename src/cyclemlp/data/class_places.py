"""Where the classes of a large mask are: how many pixels of each in every cell, so that one of them can be drawn."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cyclemlp.data.images import Pixels
from cyclemlp.data.windows import Window

CELL = 256
"""Edge of a cell in pixels; the rows of strips start at multiples of it."""


@dataclass(frozen=True, eq=False)
class ClassPlaces:
    """The pixels of each class in the cells of a mask."""

    size: tuple[int, int]
    """(height, width) of the mask."""
    counts: npt.NDArray[np.int32]
    """(rows of cells, columns of cells, classes)"""

    @classmethod
    def of(cls, size: tuple[int, int], strips: Iterable[tuple[Window, Pixels]], classes: int) -> "ClassPlaces":
        """Counted in strips of whole cells, from top to bottom; other values than classes are left out."""
        rows, columns = (-(-edge // CELL) for edge in size)
        counts = np.zeros((rows, columns, classes), np.int32)
        for (span, _), target in strips:
            for top in range(0, target.shape[0], CELL):
                for column in range(columns):
                    cell = target[top : top + CELL, column * CELL : (column + 1) * CELL]
                    found = np.bincount(cell.reshape(-1), minlength=256)
                    counts[(span.start + top) // CELL, column] = found[:classes]
        return cls(size, counts)

    @property
    def totals(self) -> npt.NDArray[np.int64]:
        """The pixels of each class."""
        return self.counts.sum(axis=(0, 1), dtype=np.int64)

    def find(self, number: int, nth: int) -> tuple[Window, int]:
        """The cell that holds the `nth` pixel of a class, counted cell by cell, and which one of the cell's it is."""
        before = self.counts[..., number].reshape(-1).cumsum(dtype=np.int64)
        place = int(np.searchsorted(before, nth, side="right"))
        row, column = divmod(place, self.counts.shape[1])
        spans = (
            slice(each * CELL, min((each + 1) * CELL, edge))
            for each, edge in zip((row, column), self.size, strict=True)
        )
        rows, columns = spans
        return (rows, columns), nth - (int(before[place - 1]) if place else 0)
