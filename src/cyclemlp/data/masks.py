"""Images with a class for every pixel: what every format of masks is read into.

Only numpy and Pillow are imported at the top, so that `cyclemlp data` answers without loading torch.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cyclemlp.data.datasets import SplitDataset
from cyclemlp.data.ground_blocks import GroundPart
from cyclemlp.data.image_errors import ImageError
from cyclemlp.data.images import SIDEWAYS, Pixels, exif_orientation
from cyclemlp.data.mask_tiffs import mask_size
from cyclemlp.data.measured_images import read_measured, valid_pixels
from cyclemlp.data.palettes import IGNORED, Palette
from cyclemlp.data.pixel_rule import PHOTO, PixelRule, measured_by
from cyclemlp.data.problems import Problem, listed
from cyclemlp.data.rasters import may_lack_pixels, read_window
from cyclemlp.data.scenes import rule_of_windows, stored_scene
from cyclemlp.data.stored_masks import StoredMask, read_stored_mask, stored_parts
from cyclemlp.data.vector_labels import VectorRule, rasterised
from cyclemlp.data.windows import Window, strips_of, windowed_size
from cyclemlp.errors import DataError

IGNORE_INDEX = IGNORED
BLACK_AND_WHITE = ("background", "object")
"""Names of the classes of masks that hold 0 and 255 alone, where nothing else names them."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskSplit:
    """The images of a split and the mask of each, in the same order."""

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    zero_ignored: bool = False
    """Whether 0 in a mask is ignored and k means class k - 1."""
    white_class: bool = False
    """Whether 255 in a mask is class 1, as in masks of 0 and 255 alone, and not ignored."""
    palette: Palette | None = None
    """The colours by which masks are read; None where their numbers are the classes."""
    vectors: VectorRule | None = None
    """How areas on a map become masks; None where masks are images."""
    other_images: tuple[Path, ...] = ()
    """Images that have no sound mask. They and `other_masks` are only inspected."""
    other_masks: tuple[Path, ...] = ()
    num_classes: int | None = None
    """Reading an image refuses values of its mask that are neither one of this many classes nor 255, if it is given."""
    rule: PixelRule = PHOTO
    """How the images become pixels."""
    part: GroundPart | None = None
    """The part of the ground that the split has: pixels elsewhere are ignored; None where all are the split's."""
    class_numbers: tuple[int, ...] | None = None
    """For each class of the data the number that it has now, or 255; None where all are as the data have them."""

    @property
    def by_number(self) -> bool:
        """Whether the numbers that masks store are the classes, and 255 is ignored."""
        return not (self.zero_ignored or self.white_class or self.palette or self.vectors)

    def size_in_windows(self, index: int) -> tuple[int, int] | None:
        """(height, width) of an image that is read in windows with its mask; None for one that is read whole.

        Raises ImageError.
        """
        size = windowed_size(self.images[index])
        return size if size is None or self.vectors is not None else mask_size(self.masks[index])

    def read(self, index: int, window: Window | None = None) -> tuple[Pixels, Pixels]:
        """An image, uint8 (H, W, C), and its mask as `target` returns it, or a window of both.

        Raises DataError if they are unusable.
        """
        mask = self.masks[index]
        if window is None:
            whole = read_measured(self.images[index], self.rule)
            pixels, numbers = whole.pixels, _ignoring(self._numbers(index), whole.valid)
        else:
            pixels, numbers = self._read_window(index, window)
        if pixels.shape[:2] != numbers.shape:
            raise DataError(str(wrong_mask_size(mask, "", numbers.shape, pixels.shape[:2], self.images[index])))
        if self.num_classes is not None and numbers.max() >= self.num_classes:
            present = np.flatnonzero(np.bincount(numbers.ravel(), minlength=256))
            if problem := outside_classes(mask, "", present, self.num_classes, zero_ignored=self.zero_ignored):
                raise DataError(str(problem))
        return pixels, numbers

    def target(self, index: int) -> Pixels:
        """The class of each pixel of an image, 255 for ignored ones, uint8 (H, W).

        Pixels that the image marks as nodata or transparent are ignored, and those of another split. Raises as
        `read_mask` and `read_raster`.
        """
        image = self.images[index]
        numbers = self._numbers(index)
        return _ignoring(numbers, valid_pixels(image, self.rule))

    def targets(self, index: int) -> Iterator[tuple[Window, Pixels]]:
        """What `target` returns, of an image that is read in windows in strips from top to bottom."""
        size = self.size_in_windows(index)
        if size is None:
            target = self.target(index)
            yield (slice(0, target.shape[0]), slice(0, target.shape[1])), target
            return
        for window in strips_of(size):
            yield window, self.window_target(index, window)

    def window_target(self, index: int, window: Window) -> Pixels:
        """The class of each pixel of a window of an image; what is nodata or transparent is ignored. Raises so, too."""
        image = self.images[index]
        numbers = self._numbers(index, window)
        valid = measured_by(read_window(image, window), self.rule) if may_lack_pixels(image) else None
        return _ignoring(numbers, valid)

    def _read_window(self, index: int, window: Window) -> tuple[Pixels, Pixels]:
        image = self.images[index]
        with stored_scene(image, rule_of_windows(image, self.rule)) as scene:
            pixels, valid = scene.measured(window)
        return pixels, _ignoring(self._numbers(index, window), valid)

    def _numbers(self, index: int, window: Window | None = None) -> Pixels:
        """The classes of an image or a window of it, as they are learnt; pixels of other splits are ignored.

        Raises DataError for values that are no class of the data.
        """
        mask, image = self.masks[index], self.images[index]
        numbers = self.own(self.stored(mask, image, window)[0], image, window)
        if self.class_numbers is None:
            return numbers
        present, known = np.flatnonzero(np.bincount(numbers.ravel(), minlength=256)), len(self.class_numbers)
        if problem := outside_classes(mask, "", present, known, zero_ignored=self.zero_ignored):
            raise DataError(str(problem))
        table = np.full(256, IGNORE_INDEX, np.uint8)
        table[:known] = self.class_numbers
        learnt: Pixels = table[numbers]
        return learnt

    def own(self, numbers: Pixels, image: Path, window: Window | None = None) -> Pixels:
        """The classes of an image or a window of it, of which pixels of the ground of other splits are ignored."""
        if self.part is None:
            return numbers
        rows, columns = window or tuple(map(partial(slice, 0), numbers.shape))
        return _ignoring(numbers, self.part.kept(image, rows, columns))

    def stored(self, mask: Path, image: Path | None = None, window: Window | None = None) -> tuple[Pixels, StoredMask]:
        """The class that the data have for each pixel of a mask, and what its file stores; areas need their image.

        With `window`, of a part of a mask that is read in windows. Raises as `read_stored_mask` and `rasterised`.
        """
        if self.vectors is not None:
            assert image is not None  # areas have no grid of their own
            numbers, counts = rasterised(mask, image, self.vectors, window)
            return numbers, StoredMask(numbers, objects=counts)
        return self._of_stored(read_stored_mask(mask, self.palette, window))

    def stored_parts(self, mask: Path, image: Path | None = None) -> Iterator[tuple[Pixels, StoredMask]]:
        """As `stored`, of a mask that is read in windows in strips from top to bottom."""
        if self.vectors is None:
            yield from map(self._of_stored, stored_parts(mask, self.palette))
            return
        size = None if image is None else windowed_size(image)
        for window in [None] if size is None else strips_of(size):
            yield self.stored(mask, image, window)

    def _of_stored(self, stored: StoredMask) -> tuple[Pixels, StoredMask]:
        return target_of(stored, zero_ignored=self.zero_ignored, white_class=self.white_class), stored


@dataclass(frozen=True)
class MaskDataset(SplitDataset[MaskSplit]):
    """Images with a class for every pixel."""

    named: bool = True
    """Whether the data set names its classes; otherwise they are class0, class1, ..."""
    chosen_from: "MaskDataset | None" = None
    """The data set with all its classes, where only some are learnt, or several as one."""

    def by_rule(self, rule: PixelRule) -> "MaskDataset":
        """The same data, whose images become pixels by this rule."""
        return replace(self, splits={name: replace(split, rule=rule) for name, split in self.splits.items()})


def read_target(path: Path, *, zero_ignored: bool, white_class: bool = False) -> Pixels:
    """The class of each pixel of a mask, uint8 (H, W). Raises as `read_mask`."""
    return target_of(read_stored_mask(path), zero_ignored=zero_ignored, white_class=white_class)


def target_of(stored: StoredMask, *, zero_ignored: bool, white_class: bool) -> Pixels:
    """The class of each pixel of a mask. With `white_class`, 255 is class 1; other values stay."""
    if white_class:
        white = stored.numbers == IGNORE_INDEX
        white = white if stored.nodata is None else white & ~stored.nodata
        return np.where(white, np.uint8(1), stored.numbers)
    if not zero_ignored:
        return stored.numbers
    ignored = (stored.numbers == 0) | (stored.numbers == IGNORE_INDEX)
    return np.where(ignored, np.uint8(IGNORE_INDEX), stored.numbers - np.uint8(1))


def _ignoring(numbers: Pixels, valid: npt.NDArray[np.bool_] | None) -> Pixels:
    """The classes with those pixels ignored that are not measured."""
    if valid is None or valid.shape != numbers.shape:
        return numbers
    return np.where(valid, numbers, np.uint8(IGNORE_INDEX))


def with_white_class(dataset: MaskDataset) -> MaskDataset:
    """The data set with 255 as class 1, if its masks hold 0 and 255 alone, and it names two classes or none.

    Masks are decoded until one holds another value, which is usually the first. Those that cannot be read are left to
    the check of all files.
    """
    splits = dataset.splits
    known = not all(split.by_number for split in splits.values())
    if known or (dataset.named and len(dataset.classes) != 2):
        return dataset
    seen: set[int] = set()
    for path in (path for split in splits.values() for path in split.masks):
        try:
            for stored in stored_parts(path):
                numbers = stored.numbers if stored.nodata is None else stored.numbers[~stored.nodata]
                seen |= set(np.unique(numbers).tolist())
                if not seen <= {0, IGNORE_INDEX}:
                    return dataset
        except ImageError:
            continue
    if seen != {0, IGNORE_INDEX}:
        return dataset
    classes = dataset.classes if dataset.named else BLACK_AND_WHITE
    _LOG.info("%s: masks hold 0 and 255 alone: 0 is class %s, 255 is class %s", dataset.root, *classes)
    white = {name: replace(split, white_class=True) for name, split in splits.items()}
    return replace(dataset, classes=classes, splits=white, named=True)


def count_classes(dataset: MaskDataset) -> MaskDataset:
    """The data set with classes class0, class1, ... up to the highest value in its masks, unless it names them.

    Masks of 0 and 255 alone have the classes of `with_white_class`. Decodes all masks that name no classes. Raises
    DataError if they hold a single class.
    """
    dataset = with_white_class(dataset)
    split = next(iter(dataset.splits.values()), None)
    if split is not None and (split.palette or split.vectors):
        by = "the colours of masks" if split.palette else "areas on a map"
        _LOG.info("%s: classes by %s: %s", dataset.root, by, listed(dataset.classes, 8))
    if dataset.named:
        return dataset
    _LOG.info("%s has no classes.txt: counting the classes in all masks", dataset.root)
    highest = 0
    for split in dataset.splits.values():
        for index in range(len(split.masks)):
            for _, numbers in split.targets(index):
                highest = max(highest, int(numbers.max(initial=0, where=numbers != IGNORE_INDEX)))
    if highest == 0:
        raise DataError(str(no_second_class(dataset)))
    return replace(dataset, classes=numbered_classes(highest))


def numbered_classes(highest: int) -> tuple[str, ...]:
    """Names for the classes 0 to `highest`."""
    return tuple(f"class{index}" for index in range(highest + 1))


def masks_folder(dataset: MaskDataset) -> Path:
    """The folder that holds the masks of all splits: the data set itself where they lie in it side by side."""
    folder = next((split.masks[0].parent.parent for split in dataset.splits.values() if split.masks), dataset.root)
    return folder if folder.is_relative_to(dataset.root) else dataset.root


def outside_classes(
    path: Path, split: str, present: Iterable[int], num_classes: int, *, zero_ignored: bool = False
) -> Problem | None:
    """The problem that a mask holds values that are neither a class nor 255, if it does.

    `present` are classes; the message has the values of the file, which with `zero_ignored` are one larger.
    """
    first = int(zero_ignored)
    wrong = [int(value) + first for value in present if value >= num_classes and value != IGNORE_INDEX]
    if not wrong:
        return None
    what = f"holds the value{'s' if len(wrong) > 1 else ''} {listed(wrong)}"
    ignored = "0 and 255" if zero_ignored else "255"
    allowed = f"outside the {num_classes} classes ({first} to {num_classes - 1 + first}, and {ignored} for ignore)"
    return Problem(path, split, f"{what}, {allowed}", "name the class in classes.txt or set those pixels to 255")


def no_second_class(dataset: MaskDataset, number: int = 0) -> Problem:
    """The problem that all masks hold a single class (and perhaps 255), as black-and-white drawings do."""
    if number:
        what = f"hold the class {number} alone, and pixels that are ignored, so there is nothing to tell apart"
        fix = "give the other pixels a class as well; where they are marked as nodata or transparent, remove that mark"
        return Problem(masks_folder(dataset), "train", what, fix)
    if any(split.zero_ignored for split in dataset.splits.values()):
        what = "hold at most one class (1) and the ignored values 0 and 255, so there is nothing to tell apart"
        fix = "write the classes as 1, 2, ...; where 0 is a class, put the masks into masks/train and masks/val"
        return Problem(masks_folder(dataset), "train", what, fix)
    fix = "write the object class as 1 (255 means ignore)"
    return Problem(masks_folder(dataset), "train", "hold no class but 0, so there is nothing to tell apart", fix)


def wrong_mask_size(
    mask: Path, split: str, size_hw: tuple[int, ...], image_hw: tuple[int, ...], image: Path
) -> Problem:
    """The problem that a mask and its image differ in size, also because the orientation tag of one turns it."""
    what = f"is {size_hw[1]}x{size_hw[0]} (width x height), its image {image_hw[1]}x{image_hw[0]}"
    if tuple(size_hw) == tuple(image_hw)[::-1]:
        if exif_orientation(image) in SIDEWAYS:
            what += f", since the EXIF orientation of {image.name} turns that by 90 degrees and the mask is not turned"
            return Problem(mask, split, what, f"turn the mask likewise, or remove the tag from {image.name}")
        if exif_orientation(mask) in SIDEWAYS:
            what += ", since the EXIF orientation of the mask turns it by 90 degrees"
            return Problem(mask, split, what, "remove the tag from the mask, or turn the image likewise")
        what += ": one is turned by 90 degrees"
        return Problem(mask, split, what, "turn it back; stretching the mask would ruin it")
    return Problem(mask, split, what, "make the mask the size of its image")
