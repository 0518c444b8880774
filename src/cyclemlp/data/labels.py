"""Images with one class each: what every format of classification data is read into.

Only numpy and Pillow are imported at the top, so that `cyclemlp data` answers without loading torch.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from cyclemlp.data.images import Pixels, read_image

if TYPE_CHECKING:
    from torch import Tensor

Sample = TypeVar("Sample")


@dataclass(frozen=True)
class ClassifiedSplit:
    """The images of a split and the class number of each, in the same order."""

    images: tuple[Path, ...]
    labels: tuple[int, ...]

    @classmethod
    def of(cls, labelled: Iterable[tuple[Path, int]]) -> "ClassifiedSplit":
        """The split of these images, each with its class number."""
        pairs = list(labelled)
        return cls(tuple(path for path, _ in pairs), tuple(label for _, label in pairs))


@dataclass(frozen=True)
class ClassifiedDataset:
    """A whole data set; label `i` is `classes[i]`."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, ClassifiedSplit]


class ClassifiedSamples(Generic[Sample]):
    """The images of a split as a map-style torch data set.

    An item is (`transform(pixels)`, label): pixels uint8 (H, W, 3), label an int64 scalar tensor. Reading an item
    raises DataError for an unusable file.
    """

    def __init__(self, split: ClassifiedSplit, transform: Callable[[Pixels], Sample]) -> None:
        self.split = split
        self.transform = transform

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, index: int) -> tuple[Sample, "Tensor"]:
        import torch

        return self.transform(read_image(self.split.images[index])), torch.tensor(self.split.labels[index])
