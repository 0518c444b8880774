"""Masks as their files store them: numbers of classes, or the colours that a palette or a list of classes gives them.

A mask is a PNG, a BMP, a TIFF or an array, never a kind of file that blurs numbers, such as JPEG.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyclemlp.data.arrays import read_array
from cyclemlp.data.image_errors import ImageError
from cyclemlp.data.images import ARRAY_SUFFIXES, Pixels, check_frames, opened, rawmode, upright
from cyclemlp.data.mask_content import MaskContent
from cyclemlp.data.mask_tiffs import mask_size, tiff_content
from cyclemlp.data.palettes import IGNORED, Colour, Palette, show_colours
from cyclemlp.data.vector_labels import VectorCounts
from cyclemlp.data.windows import TIFF_SUFFIXES, Window, strips_of

MASK_SUFFIXES = frozenset({".png", ".bmp", *TIFF_SUFFIXES, *ARRAY_SUFFIXES})
"""Suffixes of files that keep class numbers."""
_FORMAT_OF = {".bmp": "BMP"}
"""What a file is by its suffix, where that is not PNG."""
_GREY_STEP = {2: 85, 4: 17}
"""By which Pillow multiplies the values of grey PNG images, for each number of bits."""


@dataclass(frozen=True)
class StoredMask:
    """The content of a mask file."""

    numbers: Pixels
    """The class of each pixel, uint8, shape (height, width)."""
    colours: Mapping[int, Colour] = field(default_factory=dict)
    """The colour of each number that occurs, if the file has a palette that is not what its classes are read by."""
    transparent: tuple[int, ...] = ()
    """Numbers that occur and that the file marks as transparent."""
    nodata: npt.NDArray[np.bool_] | None = None
    """Pixels that the file marks as no measurement, if there are any; their number is 255."""
    objects: VectorCounts | None = None
    """Of areas that were drawn on the grid of an image: how many, and how they fit it."""


def read_mask(path: Path) -> Pixels:
    """The class of each pixel, uint8, shape (height, width), as `read_stored_mask` has it."""
    return read_stored_mask(path).numbers


def stored_parts(path: Path, palette: Palette | None = None) -> Iterator[StoredMask]:
    """A mask as `read_stored_mask` has it, one that is read in windows in strips from top to bottom."""
    size = mask_size(path)
    for window in [None] if size is None else strips_of(size):
        yield read_stored_mask(path, palette, window)


def read_stored_mask(path: Path, palette: Palette | None = None, window: Window | None = None) -> StoredMask:
    """A mask with the numbers that its file stores, turned as its EXIF orientation says, or a window of one.

    Grey values of 1, 2 and 4 bits are those stored, not scaled. With `palette` the numbers are the classes of the
    colours: those of an RGB image, those that a palette of its own gives to its numbers, or grey (v, v, v). Raises
    ImageError as `read_image` does, and for a file of another kind than its suffix says, for colours or transparency
    that mean nothing, for numbers over 255, and for a colour that `palette` does not have.
    """
    suffix = path.suffix.lower()
    if suffix in ARRAY_SUFFIXES:
        content = MaskContent(np.asarray(read_array(path)))
    elif suffix in TIFF_SUFFIXES:
        content = tiff_content(path, window)
    else:
        content = _by_pillow(path, _FORMAT_OF.get(suffix, "PNG"), scaled=palette is not None)
    if palette is not None:
        numbers = palette.numbers(content.rgb(path), path)
        return StoredMask(_with_nodata(numbers, content.nodata), nodata=content.nodata)
    values = _one_band(content, path)
    numbers = _with_nodata(_class_numbers(values, content.nodata, path), content.nodata)
    present = np.flatnonzero(np.bincount(numbers.ravel(), minlength=256)).tolist()
    table = content.table or {}
    colours = {number: table[number] for number in present if number in table}
    transparent = tuple(number for number in present if number in content.transparent)
    return StoredMask(numbers, colours, transparent, content.nodata)


def _by_pillow(path: Path, expected: str, *, scaled: bool) -> MaskContent:
    """With `scaled`, grey values of few bits are as bright as they look."""
    with opened(path) as image:
        if image.format != expected:
            what = (
                f"is a {image.format} file, whatever its suffix, but a mask is a {expected}, which keeps class numbers"
            )
            raise ImageError(path, what, f"make it again as {expected}; converting a JPEG keeps its blurred values")
        check_frames(image, path)
        if ";16" in rawmode(image) and image.mode in ("RGB", "RGBA", "LA"):
            raise ImageError(path, "has 16 bits in each of several channels", "save its colours with 8 bits each")
        step = 1 if scaled else _grey_step(image)
        turned = upright(image)
        if turned.mode in ("RGBA", "LA"):
            values = np.array(turned)
            return MaskContent(values[..., :-1], opaque=values[..., -1] == IGNORED)
        if turned.mode not in ("1", "L", "P", "RGB") and not turned.mode.startswith("I;16"):
            what = f"is a {turned.mode} image, but a mask has one channel (grey or palette), or the colours of RGB"
            raise ImageError(path, what, "save it as one of these")
        values = np.array(turned)
        if turned.mode == "1":
            values = values * np.uint8(IGNORED if scaled else 1)
        transparent = _transparent(turned, scaled=scaled)
        opaque = _opaque(turned, values, transparent)
        values = values // np.uint8(step) if values.dtype == np.uint8 and values.ndim == 2 else values
        return MaskContent(values, _palette(turned), tuple(transparent), opaque=opaque)


def _opaque(image: Image.Image, values: npt.NDArray[Any], transparent: list[int]) -> npt.NDArray[np.bool_] | None:
    """Where an image without a channel of transparency is opaque; None where it is everywhere."""
    marked = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(marked, tuple):
        return ~(values == np.array(marked)).all(axis=2)
    return ~np.isin(values, transparent) if transparent else None


def _grey_step(image: Image.Image) -> int:
    """By which Pillow multiplies the values of an opened PNG; it must not be loaded yet."""
    return next((step for bits, step in _GREY_STEP.items() if rawmode(image) == f"L;{bits}"), 1)


def _palette(image: Image.Image) -> dict[int, Colour] | None:
    if image.mode != "P" or (values := image.getpalette("RGB")) is None:
        return None
    return {number: tuple(values[3 * number : 3 * number + 3]) for number in range(len(values) // 3)}


def _transparent(image: Image.Image, *, scaled: bool) -> list[int]:
    """The numbers that an image of one channel marks as transparent."""
    marked = image.info.get("transparency")
    if isinstance(marked, int):  # as stored, but 255 for 1 in an image of two values
        return [int(bool(marked)) * (IGNORED if scaled else 1)] if image.mode == "1" else [marked]
    if isinstance(marked, bytes):
        return [number for number, alpha in enumerate(marked) if alpha == 0]
    return []


def _one_band(content: MaskContent, path: Path) -> npt.NDArray[Any]:
    """The values of a mask that holds numbers. Raises ImageError for colours, and for what is transparent."""
    values = content.values
    if content.opaque is not None and not content.transparent:
        content.check_opaque(path)
    if values.ndim == 2:
        return values
    if (values == values[..., :1]).all():
        return values[..., 0]
    if values.shape[2] != 3 or values.dtype != np.uint8:
        what = f"has {values.shape[2]} bands of type {values.dtype.name}, but a mask has one, or the colours of RGB"
        raise ImageError(path, what, "save the band that holds the class numbers")
    what = f"is an RGB image and no list says which colour is which class; it has {show_colours(values)}"
    fix = (
        "list the colours in classes.txt, one class a line such as `building 255 0 0`, or give such a file as --palette"
    )
    raise ImageError(path, what, fix)


def _class_numbers(values: npt.NDArray[Any], nodata: npt.NDArray[np.bool_] | None, path: Path) -> Pixels:
    """The values as uint8. Raises ImageError for those that are no class numbers."""
    if values.dtype == np.uint8 or values.dtype == np.bool_:
        return values.astype(np.uint8)
    kept = values if nodata is None else values[~nodata]
    if values.dtype.kind not in "iuf":
        raise ImageError(path, f"has values of type {values.dtype.name}", "save it with whole numbers, 8 bits each")
    fix = "renumber its classes"
    if values.dtype.kind == "f" and not (np.isfinite(kept).all() and (kept == np.rint(kept)).all()):
        raise ImageError(path, "holds values that are no whole numbers, but masks hold class numbers 0-254", fix)
    for value in (kept.min(initial=0), kept.max(initial=0)):
        if not 0 <= value <= IGNORED:
            what = f"holds the value {value:g}, but masks hold class numbers 0-254 and 255 for ignore"
            objects = (
                "; where it numbers objects, train instance-segmentation on their outlines" if value > IGNORED else ""
            )
            raise ImageError(path, what, fix + objects)
    return np.where(True if nodata is None else ~nodata, values, 0).astype(np.uint8)


def _with_nodata(numbers: Pixels, nodata: npt.NDArray[np.bool_] | None) -> Pixels:
    return numbers if nodata is None else np.where(nodata, np.uint8(IGNORED), numbers)
