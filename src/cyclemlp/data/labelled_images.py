"""Images with masks of which training cuts samples: decoded whole, or read in windows."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from cyclemlp.data.class_places import ClassPlaces
from cyclemlp.data.images import Pixels
from cyclemlp.data.masks import IGNORE_INDEX, MaskSplit
from cyclemlp.data.windows import Window


class LabelledImage(Protocol):
    """An image and its mask."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""

    @property
    def channels(self) -> int:
        """Channels of the image."""

    def read(self, window: Window, /) -> tuple[Pixels, Pixels]:
        """The pixels (h, w, C) and the classes (h, w) of a window."""

    def target(self, window: Window, /) -> Pixels:
        """The classes (h, w) of a window."""

    def totals(self) -> npt.NDArray[np.int64]:
        """The number of pixels of each class."""

    def pixel_of(self, number: int, nth: int, /) -> tuple[int, int]:
        """Row and column of the `nth` pixel of a class."""


@dataclass(frozen=True, eq=False)
class WholeImage:
    """An image, uint8 (H, W, C), and its mask, uint8 (H, W), in memory."""

    image: Pixels
    mask: Pixels

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        height, width = self.mask.shape
        return height, width

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return self.image.shape[2]

    def read(self, window: Window) -> tuple[Pixels, Pixels]:
        """Views of both."""
        return self.image[window], self.mask[window]

    def target(self, window: Window) -> Pixels:
        """A view of the mask."""
        return self.mask[window]

    def totals(self) -> npt.NDArray[np.int64]:
        """The number of pixels of each class."""
        flat = torch.from_numpy(self.mask.reshape(-1))  # numpy would count a copy of eight times the size
        return torch.bincount(flat, minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX].numpy()

    def pixel_of(self, number: int, nth: int) -> tuple[int, int]:
        """Counted row by row."""
        index = int(np.flatnonzero(self.mask.reshape(-1) == number)[nth])
        row, column = divmod(index, self.mask.shape[1])
        return row, column


@dataclass(frozen=True, eq=False)
class WindowedImage:
    """An image of a split that is read in windows."""

    split: MaskSplit
    index: int
    size: tuple[int, int]
    """(height, width)"""
    places: ClassPlaces | None = None
    """Where its classes are; None where nobody asks."""

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return self.split.rule.channels

    def read(self, window: Window) -> tuple[Pixels, Pixels]:
        """Raises DataError as `MaskSplit.read` does."""
        return self.split.read(self.index, window)

    def target(self, window: Window) -> Pixels:
        """Raises DataError as `MaskSplit.window_target` does."""
        return self.split.window_target(self.index, window)

    def totals(self) -> npt.NDArray[np.int64]:
        """The number of pixels of each class."""
        assert self.places is not None  # counted where crops are drawn by class
        return self.places.totals

    def pixel_of(self, number: int, nth: int) -> tuple[int, int]:
        """Counted cell by cell, and row by row in a cell."""
        assert self.places is not None
        (rows, columns), left = self.places.find(number, nth)
        row, column = WholeImage(np.empty(0, np.uint8), self.target((rows, columns))).pixel_of(number, left)
        return rows.start + row, columns.start + column
