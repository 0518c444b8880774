"""The samples of a split with masks: one of an image that is decoded whole, many of one that is read in windows."""

import logging
import math

from torch import Tensor

from cyclemlp.data.class_places import ClassPlaces
from cyclemlp.data.image_errors import MAX_PIXELS
from cyclemlp.data.labelled_images import WholeImage, WindowedImage
from cyclemlp.data.mask_transforms import MaskTrainTransform
from cyclemlp.data.masks import MaskSplit
from cyclemlp.data.scenes import rule_of_windows, slow_windows
from cyclemlp.errors import ConfigError
from cyclemlp.progress import progress_bar

_LOG = logging.getLogger(__name__)


class MaskSamples:
    """Item `i` is a random sample of an image and its mask.

    An image that is read in windows has as many items as crops cover it, so that a pass sees about every pixel once.
    Raises ConfigError where such an image would be resized as a whole, DataError as the split does.
    """

    def __init__(self, split: MaskSplit, transform: MaskTrainTransform) -> None:
        self.split = split
        self.transform = transform
        self._windowed: dict[int, WindowedImage] = {}
        self._order: list[int] = []
        for index in range(len(split.images)):
            size = self._size_in_windows(index)
            self._order += [index] * (1 if size is None else self._crops(size))
            if size is not None:
                self._windowed[index] = self._opened(index, size)
        if self._windowed:
            crops = len(self._order) - len(split.images) + len(self._windowed)
            _LOG.info("%d large images are read in windows, %d samples in a pass", len(self._windowed), crops)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        index = self._order[item]
        image = self._windowed.get(index)
        return self.transform.sample(WholeImage(*self.split.read(index)) if image is None else image)

    def _size_in_windows(self, index: int) -> tuple[int, int] | None:
        """None also for an image that is resized as a whole, if it is small enough to be decoded."""
        size, rule = self.split.size_in_windows(index), self.transform.rule
        if size is None or (rule.short_side is None and rule.long_side is None):
            return size
        if size[0] * size[1] > MAX_PIXELS:
            raise ConfigError(
                f"--short-side and --long-side resize whole images, and {self.split.images[index]} is too large for"
                " that: leave them out, or give --input-scale"
            )
        return None

    def _crops(self, size: tuple[int, int]) -> int:
        """How many crops cover an image."""
        edge = self.transform.augmentation.crop_size / self.transform.rule.factor(*size)
        return math.ceil(size[0] * size[1] / edge**2)

    def _opened(self, index: int, size: tuple[int, int]) -> WindowedImage:
        path = self.split.images[index]
        rule_of_windows(path, self.split.rule)  # measured here, and not in each worker
        for each in (path, self.split.masks[index]):
            if slow := slow_windows(each):
                _LOG.warning("note: %s %s", each, slow)
        if not self.transform.augmentation.rare_class_crops:
            return WindowedImage(self.split, index, size)
        strips = progress_bar(self.split.targets(index), what=f"finding the classes in {path.name}", unit="strips")
        classes = self.split.num_classes or 255
        return WindowedImage(self.split, index, size, ClassPlaces.of(size, strips, classes))
