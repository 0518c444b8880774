"""From a decoded picture and mask to training tensors: cut, scale, flip, colour, normalise.

The region is cut before it is scaled and scaled before it is converted, so that work is done only for the
pixels of the sample. Every random number comes from torch's global generator: the loader seeds it per sample,
and the same seed gives the same sample in any worker.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from cyclemlp.data.formats.masks import IGNORE_INDEX
from cyclemlp.data.sizes import size_factor
from cyclemlp.errors import ConfigError

REDRAWS = 10
Pixels = Tensor | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel, of values from 0 to 1, that the network's input is normalised by."""

    mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, float, float] = IMAGENET_DEFAULT_STD


@dataclass(frozen=True)
class SegmentationAugmentation:
    """How training samples vary; raises ConfigError for values that make no sense."""

    crop_size: int = 256
    """Height and width of a sample in pixels."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Least and greatest enlargement."""
    scale_draw: Literal["log-uniform", "uniform"] = "log-uniform"
    """How it is drawn between them: evenly on a logarithmic scale, or evenly."""
    short_side: int | None = None
    """Pixels that the picture's shorter edge has before it is enlarged; None keeps it."""
    long_side: int | None = None
    """Most pixels of its longer edge then."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    vertical_flip: float = 0.0
    """Probability of an upside-down flip."""
    brightness: float = 0.2
    """Greatest relative change of brightness, up or down; 0 for none. The next two likewise."""
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.0
    """Greatest turn of the hue in circles, at most 0.5; costs more time than the others together."""
    colour_probability: float = 1.0
    """Probability of each of the four changes of colour."""
    rare_class_crops: float = 0.0
    """Share of crops placed over a pixel of a class drawn from those in the picture, by 1 / sqrt(its pixels)."""
    largest_class: float = 1.0
    """A crop is drawn again, up to 10 times, where one class has this share or more of its labelled pixels; 1 takes
    every crop. A crop with labels of no other class counts as full of it."""

    def __post_init__(self) -> None:
        if self.crop_size < 32:
            raise ConfigError(f"crop_size is {self.crop_size}; allowed are 32 and more")
        low, high = self.scale
        if not 0 < low <= high:
            raise ConfigError(f"scale is {low} {high}; allowed are two positive numbers, the smaller one first")
        limits = {"hue": 0.5}
        for name in (
            *limits,
            *("flip", "vertical_flip", "rare_class_crops", "colour_probability", "largest_class"),
            *("brightness", "contrast", "saturation"),
        ):
            value, limit = getattr(self, name), limits.get(name, 1.0)
            if not 0 <= value <= limit:
                raise ConfigError(f"{name} is {value}; allowed are 0 to {limit:g}")


class SegmentationTrainTransform:
    """A random training sample of a picture: float32 (3, c, c) normalised, and int64 (c, c) with 255 = ignore.

    Called with an image, uint8 (H, W, 3) array or (3, H, W) tensor, and its mask, uint8 (H, W). Where the
    picture is smaller than the region, the rest of the sample is the mean colour and ignored.
    """

    def __init__(
        self,
        augmentation: SegmentationAugmentation | None = None,
        normalisation: Normalisation | None = None,
    ) -> None:
        self.augmentation = augmentation or SegmentationAugmentation()
        self.normalisation = normalisation or Normalisation()

    def __call__(self, image: Pixels, mask: Pixels) -> tuple[Tensor, Tensor]:
        options, crop = self.augmentation, self.augmentation.crop_size
        image_chw, mask_hw = _as_chw(image), _as_plain(mask)
        height, width = mask_hw.shape
        enlarged = _drawn_scale(options) * size_factor(height, width, options.short_side, options.long_side)
        edge = max(1, round(crop / enlarged))
        top, left = _varied_place(mask_hw, edge, options)
        rows, columns = _span(top, edge, crop, mask_hw.shape[0]), _span(left, edge, crop, mask_hw.shape[1])
        source = (..., slice(*rows.source), slice(*columns.source))
        size = [rows.target[1] - rows.target[0], columns.target[1] - columns.target[0]]
        image_part, mask_part = _resize(image_chw[source], mask_hw[source], size)
        image_out = image_chw.new_zeros((3, crop, crop), dtype=torch.float32)  # 0 is the mean once normalised
        mask_out = torch.full((crop, crop), IGNORE_INDEX, dtype=torch.int64)
        target = (..., slice(*rows.target), slice(*columns.target))
        image_out[target] = _normalise(_jitter(image_part, options), self.normalisation)
        mask_out[target] = mask_part
        return _flip(image_out, mask_out, options)


def normalise(image_uint8_hwc: npt.NDArray[np.uint8], normalisation: Normalisation) -> Tensor:
    """The picture, uint8 (H, W, 3), as the network's input, float32 (3, H, W)."""
    return _normalise(_as_chw(image_uint8_hwc), normalisation)


class _Span(NamedTuple):
    """Along one axis: the part of the picture that is cut, and where it lies in the sample."""

    source: tuple[int, int]
    target: tuple[int, int]


def _span(start: int, edge: int, crop: int, length: int) -> _Span:
    """The part of [start, start + edge) inside [0, length), and its place when `edge` becomes `crop` pixels."""
    first, last = max(start, 0), min(start + edge, length)
    place = round((first - start) * crop / edge)
    end = round((last - start) * crop / edge)
    place = min(place, crop - 1)
    return _Span((first, last), (place, max(end, place + 1)))


def _varied_place(mask_hw: Tensor, edge: int, options: SegmentationAugmentation) -> tuple[int, int]:
    """Top and left of a region that no class fills, as far as a few draws find one."""
    place = _place(mask_hw, edge, options.rare_class_crops)
    if options.largest_class >= 1:
        return place
    for _ in range(REDRAWS):
        top, left = place  # below 0 where the region is larger than the picture
        region = mask_hw[max(top, 0) : top + edge, max(left, 0) : left + edge]
        counts = torch.bincount(region.reshape(-1), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
        if int(counts.max()) < options.largest_class * int(counts.sum()):
            break
        place = _place(mask_hw, edge, options.rare_class_crops)
    return place


def _place(mask_hw: Tensor, edge: int, rare_class_crops: float) -> tuple[int, int]:
    """Top and left of the region: anywhere, or over a pixel of a class drawn from those present."""
    height, width = mask_hw.shape
    row = column = None
    if rare_class_crops and _uniform(0, 1) < rare_class_crops and (pixel := _pixel_of_any_class(mask_hw)):
        row, column = pixel
    return _start(edge, height, row), _start(edge, width, column)


def _start(edge: int, length: int, must_hold: int | None) -> int:
    """A start drawn evenly from those that keep region and picture inside each other and hold the position."""
    low, high = sorted((0, length - edge))
    if must_hold is not None:
        low, high = max(low, must_hold - edge + 1), min(high, must_hold)
    return int(torch.randint(low, high + 1, ()))


def _pixel_of_any_class(mask_hw: Tensor) -> tuple[int, int] | None:
    flat = mask_hw.reshape(-1)
    counts = torch.bincount(flat, minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    present = counts.nonzero().flatten().tolist()
    if not present:
        return None
    drawn = present[int(torch.multinomial(counts[present].double().rsqrt(), 1))]
    nth = int(torch.randint(int(counts[drawn]), ()))
    index = int(np.flatnonzero((flat == drawn).numpy())[nth])
    return divmod(index, mask_hw.shape[1])


def _resize(image_chw: Tensor, mask_hw: Tensor, size: list[int]) -> tuple[Tensor, Tensor]:
    """Image bilinear with antialiasing; mask by the pixel under the centre (NEAREST is off by half a pixel)."""
    if list(mask_hw.shape) == size:
        return image_chw, mask_hw
    image = F.resize(image_chw, size, F.InterpolationMode.BILINEAR, antialias=True)
    return image, F.resize(mask_hw[None], size, F.InterpolationMode.NEAREST_EXACT)[0]


def _flip(image: Tensor, mask: Tensor, options: SegmentationAugmentation) -> tuple[Tensor, Tensor]:
    for probability, axis in ((options.flip, -1), (options.vertical_flip, -2)):
        if probability and _uniform(0, 1) < probability:
            image, mask = image.flip(axis), mask.flip(axis)
    return image, mask


def _jitter(image: Tensor, options: SegmentationAugmentation) -> Tensor:
    """Colours changed, on float32 values from 0 to 1."""
    image = image.contiguous().to(torch.float32) / 255  # a decoded picture is interleaved, which is slower here
    for strength, adjust in (
        (options.brightness, F.adjust_brightness),
        (options.contrast, F.adjust_contrast),
        (options.saturation, F.adjust_saturation),
    ):
        if strength and _happens(options.colour_probability):
            image = adjust(image, _uniform(1 - strength, 1 + strength))
    if options.hue and _happens(options.colour_probability):
        image = F.adjust_hue(image, _uniform(-options.hue, options.hue))
    return image


def _normalise(image_chw: Tensor, normalisation: Normalisation) -> Tensor:
    """From uint8, or float32 in 0 to 1, to normalised float32."""
    unit = 255.0 if image_chw.dtype == torch.uint8 else 1.0
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalisation.mean, normalisation.std))
    return (image_chw - mean * unit) / (std * unit)


def _as_chw(image: Pixels) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1) if isinstance(image, np.ndarray) else image.as_subclass(Tensor)


def _as_plain(mask: Pixels) -> Tensor:
    """Without the tv_tensors subclass, whose dispatch costs more than the operations here."""
    return torch.from_numpy(mask) if isinstance(mask, np.ndarray) else mask.as_subclass(Tensor)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _happens(probability: float) -> bool:
    return probability >= 1 or _uniform(0, 1) < probability


def _drawn_scale(options: SegmentationAugmentation) -> float:
    low, high = options.scale
    if options.scale_draw == "uniform":
        return _uniform(low, high)
    return math.exp(_uniform(math.log(low), math.log(high)))
