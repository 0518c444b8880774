"""What training transforms share: random numbers, places, colours, flips, resizing and normalisation.

Every random number follows from torch's global generator: the loader seeds it per sample, and the same seed gives the
same sample in any worker.
"""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from cyclemlp.data.augmentation import BoxAugmentation, MaskAugmentation

COLOURS = 3


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel, of values from 0 to 1, that the network's input is normalised by."""

    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD

    def __call__(self, image_chw: Tensor) -> Tensor:
        """The float32 image of values from 0 to 1, normalised."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (image_chw - mean) / std


@contextmanager
def seeded_by_torch() -> Iterator[None]:
    """Within the block Python's and numpy's generators, from which timm draws, follow torch's; restored afterwards."""
    seed = int(torch.randint(2**32, (), dtype=torch.int64))
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002


def uniform(low: float, high: float) -> float:
    """A number between `low` and `high`."""
    return low + (high - low) * float(torch.rand(()))


def log_uniform(low: float, high: float) -> float:
    """A factor between `low` and `high`, as often halved as doubled."""
    return math.exp(uniform(math.log(low), math.log(high)))


def happens(probability: float) -> bool:
    """Whether something of this probability happens; a certain outcome draws no number."""
    return probability > 0 and (probability >= 1 or uniform(0, 1) < probability)


def random_start(edge: int, length: int, must_hold: int | None) -> int:
    """Where `edge` pixels start along an axis of `length`, so that the shorter of the two lies inside the longer.

    The position `must_hold` lies inside them if it is given.
    """
    low, high = sorted((0, length - edge))
    if must_hold is not None:
        low, high = max(low, must_hold - edge + 1), min(high, must_hold)
    return int(torch.randint(low, high + 1, ()))


def jittered(image_chw: Tensor, options: MaskAugmentation | BoxAugmentation, probability: float = 1.0) -> Tensor:
    """The uint8 image with changed colours, as float32 values from 0 to 1; each change has the given probability."""
    image = image_chw.contiguous().to(torch.float32) / 255  # a decoded image is interleaved, which is slower here
    if image.shape[0] != COLOURS:
        return _jittered_bands(image, options, probability)
    for strength, adjust in (
        (options.brightness, F.adjust_brightness),
        (options.contrast, F.adjust_contrast),
        (options.saturation, F.adjust_saturation),
    ):
        if strength and happens(probability):
            image = adjust(image, uniform(1 - strength, 1 + strength))
    if options.hue and happens(probability):
        image = F.adjust_hue(image, uniform(-options.hue, options.hue))
    return image


def _jittered_bands(image: Tensor, options: MaskAugmentation | BoxAugmentation, probability: float) -> Tensor:
    """Brightness and contrast of an image that is not RGB; bands of other kinds have no saturation and no hue."""
    if options.brightness and happens(probability):
        image = image * uniform(1 - options.brightness, 1 + options.brightness)
    if options.contrast and happens(probability):
        mean = image.mean(dim=(-2, -1), keepdim=True)
        image = torch.lerp(mean, image, uniform(1 - options.contrast, 1 + options.contrast))
    return image.clamp(0, 1)


def drawn_flips(options: MaskAugmentation | BoxAugmentation) -> Iterator[int]:
    """The axes, -1 for columns and -2 for rows, along which this sample is flipped."""
    for probability, axis in ((options.flip, -1), (options.vertical_flip, -2)):
        if probability and uniform(0, 1) < probability:
            yield axis


def drawn_turns(probability: float | None) -> int:
    """How many quarter turns to the left a sample is turned by: 0, or with this probability 1, 2 or 3."""
    return int(torch.randint(1, 4, ())) if happens(probability or 0.0) else 0


def resize_image(image_chw: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Bilinear with antialiasing."""
    return F.resize(image_chw, list(size_hw), F.InterpolationMode.BILINEAR, antialias=True)


def resize_labels(masks: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Masks (N, H, W) by the pixel under each centre (NEAREST is off by half a pixel)."""
    return F.resize(masks, list(size_hw), F.InterpolationMode.NEAREST_EXACT)
