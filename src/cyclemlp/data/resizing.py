"""The size at which a network sees an image, and bilinear resizing; without torch, as exported networks need it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyclemlp.data.images import Pixels

SquareRule = Literal["crop", "pad", "squash"]
SQUARE_RULES: tuple[str, ...] = get_args(SquareRule)
MIN_SHARE_IN_CROP = 0.5
"""Images of which a crop keeps less are worth a note."""
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ResizeRule:
    """COCO's rule, a length for the shorter side unless the longer would pass its limit; then a factor for all."""

    input_scale: float = 1.0
    """Factor on both sides."""
    short_side: int | None = None
    """Length of the shorter side in pixels; None keeps it."""
    long_side: int | None = None
    """Maximum length of the longer side in pixels."""

    def factor(self, height: int, width: int) -> float:
        """The factor on both sides; without `short_side` the longer side is at most downscaled to `long_side`."""
        to_short = 1.0 if self.short_side is None else self.short_side / min(height, width)
        to_long = to_short if self.long_side is None else self.long_side / max(height, width)
        return self.input_scale * min(to_short, to_long)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after resizing, which keeps the proportions up to rounding."""
        factor = self.factor(height, width)
        return max(1, round(height * factor)), max(1, round(width * factor))

    def resized(self, pixels: Pixels) -> Pixels:
        """The image (H, W, C) at its new size, bilinear and antialiased."""
        height, width = self.size(*pixels.shape[:2])
        if (height, width) == pixels.shape[:2]:
            return pixels
        channels = [
            np.asarray(Image.fromarray(pixels[..., i]).resize((width, height), Image.Resampling.BILINEAR))
            for i in range(pixels.shape[2])
        ]
        return np.stack(channels, axis=-1)


def fitted(image: Pixels, size: int, how: SquareRule, crop_pct: float, fill: Sequence[float]) -> Pixels:
    """What a classifier sees of an image (H, W, C): `size` x `size` pixels.

    `crop` is `central_crop`; `squash` resizes both sides to `size`; `pad` resizes the longer one and surrounds the rest
    by the colour `fill`, from 0 to 1. Only `crop` uses `crop_pct`.
    """
    if image.shape[2] == 3:
        return central_crop(image, size, crop_pct) if how == "crop" else whole_square(image, size, how, fill)
    bands = [
        fitted(np.repeat(image[..., band, None], 3, axis=2), size, how, crop_pct, [fill[band]] * 3)[..., 0]
        for band in range(image.shape[2])
    ]
    return np.stack(bands, axis=-1)


def whole_square(image: Pixels, edge: int, how: SquareRule, fill: Sequence[float]) -> Pixels:
    """The whole image (H, W, 3), squashed or padded to `edge` x `edge` pixels."""
    pixels = Image.fromarray(image)
    if how == "squash":
        return np.array(pixels.resize((edge, edge), Image.Resampling.BICUBIC))
    factor = edge / max(pixels.size)
    width, height = (max(1, round(length * factor)) for length in pixels.size)
    canvas = Image.new("RGB", (edge, edge), tuple(round(255 * value) for value in fill))
    canvas.paste(pixels.resize((width, height), Image.Resampling.BICUBIC), ((edge - width) // 2, (edge - height) // 2))
    return np.array(canvas)


def share_in_crop(height: int, width: int, size: int, crop_pct: float) -> float:
    """The share of an image's area that `central_crop` keeps."""
    kept = size / max(size, int(size / crop_pct))
    return kept**2 * min(height, width) / max(height, width)


def central_crop(image: Pixels, size: int, crop_pct: float) -> Pixels:
    """The middle `size` x `size` pixels of an image (H, W, 3) whose shorter side is resized to size / crop_pct.

    This is what a classifier sees in evaluation, as in the authors' datasets.py: bicubic, and 256 pixels for 224 at
    crop_pct 0.875.
    """
    height, width = image.shape[:2]
    shorter = max(size, int(size / crop_pct))
    new_width, new_height = (
        (shorter, max(shorter, int(shorter * height / width)))
        if width <= height
        else (max(shorter, int(shorter * width / height)), shorter)
    )
    resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BICUBIC)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    return np.array(resized.crop((left, top, left + size, top + size)))


def resize_bilinear(maps: FloatArray, height: int, width: int, *, antialias: bool = False) -> FloatArray:
    """`maps` (..., H, W) at another size: values are those of torch's bilinear `interpolate`, corners not aligned.

    With `antialias` every pixel of a downscaled image is a mean over all pixels that it covers, as in training;
    without, it is read between two of them.
    """
    if maps.shape[-1] * height <= maps.shape[-2] * width:  # the axis that leaves less to do comes first
        return _along(_along(maps, height, -2, antialias), width, -1, antialias)
    return _along(_along(maps, width, -1, antialias), height, -2, antialias)


def _along(maps: FloatArray, length: int, axis: int, antialias: bool) -> FloatArray:
    given = maps.shape[axis]
    if given == length:
        return maps
    return _averaged(maps, length, axis) if antialias and length < given else _interpolated(maps, length, axis)


def _interpolated(maps: FloatArray, length: int, axis: int) -> FloatArray:
    given = maps.shape[axis]
    places = np.maximum((np.arange(length) + 0.5) * (given / length) - 0.5, 0)
    before = places.astype(np.intp)
    after = np.minimum(before + 1, given - 1)
    share = _along_axis((places - before).astype(np.float32), axis)
    out = np.take(maps, after, axis)
    lower = np.take(maps, before, axis)
    out -= lower
    out *= share
    out += lower
    return out


def _averaged(maps: FloatArray, length: int, axis: int) -> FloatArray:
    """Each pixel is a mean under a triangle that is as wide as two of the new pixels."""
    given = maps.shape[axis]
    scale = given / length
    centres = (np.arange(length) + 0.5) * scale
    taps = np.floor(centres - scale).astype(np.intp) + np.arange(2 * math.ceil(scale) + 1)[:, None]
    weights = np.maximum(1 - np.abs(taps + 0.5 - centres) / scale, 0) * ((taps >= 0) & (taps < given))
    weights /= weights.sum(axis=0)
    out = np.zeros((*maps.shape[:axis], length, *maps.shape[axis:][1:]), dtype=np.float32)
    for places, shares in zip(taps.clip(0, given - 1), weights.astype(np.float32), strict=True):
        part = np.take(maps, places, axis)
        part *= _along_axis(shares, axis)
        out += part
    return out


def _along_axis(values: FloatArray, axis: int) -> FloatArray:
    return values[:, None] if axis == -2 else values
