"""Masks as their files store them: numbers of classes, and the colours that a palette gives to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from cyclemlp.data.images import ImageError, Pixels, check_frames, opened, rawmode, upright

IGNORED = 255
"""The value of a mask that stands for no class."""

_GREY_STEP = {2: 85, 4: 17}
"""By which Pillow multiplies the values of grey PNG images, for each number of bits."""

Colour = tuple[int, ...]


@dataclass(frozen=True)
class StoredMask:
    """The content of a mask file."""

    numbers: Pixels
    """The class of each pixel, uint8, shape (height, width)."""
    colours: Mapping[int, Colour] = field(default_factory=dict)
    """The colour of each number that occurs, if the file has a palette."""
    transparent: tuple[int, ...] = ()
    """Numbers that occur and that the file marks as transparent."""


def read_mask(path: Path) -> Pixels:
    """The class of each pixel, uint8, shape (height, width), as `read_stored_mask` has it."""
    return read_stored_mask(path).numbers


def read_stored_mask(path: Path) -> StoredMask:
    """A mask with the numbers that its file stores, turned as its EXIF orientation says.

    Grey values of 1, 2 and 4 bits are those stored, not scaled. Raises ImageError as `read_image` does, and if the file
    is not a PNG, whatever its suffix, holds colours instead of class numbers, or numbers over 255.
    """
    with opened(path) as image:
        if image.format != "PNG":
            what = f"is a {image.format} file, whatever its suffix, but a mask is a PNG, which keeps class numbers"
            raise ImageError(path, what, "make it again as PNG; converting a JPEG keeps its blurred values")
        check_frames(image, path)
        step = _grey_step(image)
        turned = upright(image)
        if turned.mode not in ("1", "L", "P") and not turned.mode.startswith("I;16"):
            raise _coloured_mask(turned, path)
        numbers = np.array(turned)
        if numbers.dtype != np.uint8 and numbers.max() > IGNORED:
            what = f"holds the value {numbers.max()}, but masks hold class numbers 0-254 and 255 for ignore"
            raise ImageError(path, what, "renumber its classes")
        numbers = numbers.astype(np.uint8) // np.uint8(step)
        present = np.flatnonzero(np.bincount(numbers.ravel(), minlength=256)).tolist()
        return StoredMask(numbers, _palette(turned, present), _transparent(turned, present))


def _grey_step(image: Image.Image) -> int:
    """By which Pillow multiplies the values of an opened PNG; it must not be loaded yet."""
    return next((step for bits, step in _GREY_STEP.items() if rawmode(image) == f"L;{bits}"), 1)


def _coloured_mask(image: Image.Image, path: Path) -> ImageError:
    what = f"is a {image.mode} image, but a mask has one channel (grey or palette) that holds class numbers"
    bands = np.asarray(image)[..., : 3 if image.mode.startswith("RGB") else 1]
    equal = bands.shape[-1] == 1 or bool((bands == bands[..., :1]).all())
    kept = ", or keep one of its equal channels, if that holds them" if equal else ""
    return ImageError(path, what, f"convert its colours to class numbers{kept}")


def _palette(image: Image.Image, present: list[int]) -> dict[int, Colour]:
    if image.mode != "P" or (values := image.getpalette("RGB")) is None:
        return {}
    return {number: tuple(values[3 * number : 3 * number + 3]) for number in present}


def _transparent(image: Image.Image, present: list[int]) -> tuple[int, ...]:
    marked = image.info.get("transparency")
    if isinstance(marked, int):  # as stored, but 255 for 1 in an image of two values
        number = int(bool(marked)) if image.mode == "1" else marked
        return (number,) if number in present else ()
    if isinstance(marked, bytes):
        return tuple(number for number in present if number < len(marked) and marked[number] == 0)
    return ()
