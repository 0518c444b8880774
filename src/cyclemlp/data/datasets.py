"""What every data set is, images with one class each, and the samples of a split, whatever its labels are.

Only numpy and Pillow are imported at the top, so that `cyclemlp data` answers without loading torch.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from cyclemlp.data.ground_blocks import GroundPart
from cyclemlp.data.images import Pixels
from cyclemlp.data.measured_images import MeasuredImage, read_measured
from cyclemlp.data.pixel_rule import PHOTO, PixelRule
from cyclemlp.errors import DataError

Label_co = TypeVar("Label_co", covariant=True)
Label = TypeVar("Label")
Sample = TypeVar("Sample")
Split = TypeVar("Split")


@dataclass(frozen=True)
class SplitDataset(Generic[Split]):
    """A whole data set; class `i` of its labels is `classes[i]`."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, Split]
    data_classes: tuple[str, ...] = field(default=(), kw_only=True)
    """All classes that the data have, where only some are learnt, or several as one."""


class ReadableSplit(Protocol[Label_co]):
    """Images with labels of one type."""

    @property
    def images(self) -> Sequence[Path]:
        """The image files."""

    def read(self, index: int) -> tuple[Pixels, Label_co]:
        """An image, uint8 (H, W, C), and its label. Raises DataError for an unusable file."""


class SplitSamples(Generic[Label, Sample]):
    """Item `i` is `transform(image, label)` of image `i`. Reading one raises DataError as the split does."""

    def __init__(self, split: ReadableSplit[Label], transform: Callable[[Pixels, Label], Sample]) -> None:
        self.split = split
        self.transform = transform

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, index: int) -> Sample:
        return self.transform(*self.split.read(index))


def require_measured(image: MeasuredImage, name: Path | str) -> None:
    """Raise DataError where no pixel of an image is measured: it has no class."""
    if image.valid is not None and not image.valid.any():
        raise DataError(f"{name} has no measured pixel: all are nodata or transparent; remove it")


@dataclass(frozen=True)
class ClassifiedSplit:
    """The images of a split and the class number of each, in the same order."""

    images: tuple[Path, ...]
    labels: tuple[int, ...]
    rule: PixelRule = PHOTO
    """How the images become pixels."""
    part: GroundPart | None = None
    """The part of the ground that the images are from; None where they are not chosen by place."""

    @classmethod
    def of(cls, labelled: Iterable[tuple[Path, int]]) -> "ClassifiedSplit":
        """The split of these images, each with its class number."""
        pairs = list(labelled)
        return cls(tuple(path for path, _ in pairs), tuple(label for _, label in pairs))

    def read(self, index: int) -> tuple[Pixels, int]:
        """An image, uint8 (H, W, C), and its class number. Raises DataError for an unusable file."""
        image = read_measured(self.images[index], self.rule)
        require_measured(image, self.images[index])
        return image.pixels, self.labels[index]


@dataclass(frozen=True)
class ClassifiedDataset(SplitDataset[ClassifiedSplit]):
    """Images with one class each."""
