"""Images with one class each: what every format of classification data is read into.

Only numpy and Pillow are imported at the top, so that `cyclemlp data` answers without loading torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cyclemlp.data.images import Pixels, read_image


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

    def read(self, index: int) -> tuple[Pixels, int]:
        """An image, uint8 (H, W, 3), and its class number. Raises DataError for an unusable file."""
        return read_image(self.images[index]), self.labels[index]


@dataclass(frozen=True)
class ClassifiedDataset:
    """A whole data set; label `i` is `classes[i]`."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, ClassifiedSplit]
