"""The images of a split as a map-style torch data set, whatever their labels are."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from cyclemlp.data.images import Pixels

Label_co = TypeVar("Label_co", covariant=True)
Label = TypeVar("Label")
Sample = TypeVar("Sample")


class ReadableSplit(Protocol[Label_co]):
    """Images with labels of one type."""

    @property
    def images(self) -> Sequence[Path]:
        """The image files."""

    def read(self, index: int) -> tuple[Pixels, Label_co]:
        """An image, uint8 (H, W, 3), and its label. Raises DataError for an unusable file."""


class SplitSamples(Generic[Label, Sample]):
    """Item `i` is `transform(image, label)` of image `i`. Reading one raises DataError as the split does."""

    def __init__(self, split: ReadableSplit[Label], transform: Callable[[Pixels, Label], Sample]) -> None:
        self.split = split
        self.transform = transform

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, index: int) -> Sample:
        return self.transform(*self.split.read(index))
