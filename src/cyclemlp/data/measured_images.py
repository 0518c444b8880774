"""Images by a pixel rule, with the pixels that were measured: what training, evaluation and prediction read.

A pixel is not measured where its file marks it as nodata, transparent or masked, or where a band holds no number.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cyclemlp.data.image_errors import ImageError, check_pixels, named_errors
from cyclemlp.data.images import (
    JPEG2000_SUFFIXES,
    ImageInput,
    Pixels,
    decode_image,
    is_tiff,
    opened,
    read_image,
    upright,
)
from cyclemlp.data.pixel_rule import (
    PHOTO,
    PixelRule,
    measured_by,
    pixels_of,
    range_doubt,
    select_bands,
    selected_bands,
)
from cyclemlp.data.rasters import (
    Measured,
    Raster,
    as_bands,
    checked,
    is_photo,
    may_lack_pixels,
    raster_of_pillow,
    read_raster,
)

_EIGHT_BITS = PixelRule("fixed", ranges=((0.0, 255.0),))
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class MeasuredImage:
    """The pixels of an image, and which of them count."""

    pixels: Pixels
    """(height, width, channels)"""
    valid: Measured | None = None
    """Whether each pixel (height, width) is measured and not transparent; None where all are."""


def read_measured(path: Path, rule: PixelRule) -> MeasuredImage:
    """An image file by this rule. Raises ImageError and DataError for what does not fit it."""
    if rule.values == "photo":
        return MeasuredImage(_photo(path), valid_pixels(path))
    raster = read_raster(path)
    selected, valid = selected_bands(raster, rule, str(path)), measured_by(raster, rule)
    return MeasuredImage(pixels_of(selected, rule, valid), valid)


def decode_measured(image: ImageInput, rule: PixelRule, channels: int) -> MeasuredImage:
    """A path, a Pillow image or an array by this rule; values that do not fit its range are named in the log.

    Raises DataError for an unusable image or one with other bands, TypeError for anything else.
    """
    if rule.values == "photo":
        return _decoded_photo(image, channels)
    name = str(image) if isinstance(image, str | Path) else "the image"
    raster = _raster_of(image)
    selected, valid = selected_bands(raster, rule, name), measured_by(raster, rule)
    if rule.values == "fixed" and (doubt := range_doubt(selected, valid, rule)):
        _LOG.warning("warning: %s %s", name, doubt)
    return MeasuredImage(pixels_of(selected, rule, valid), valid)


def valid_pixels(path: Path, rule: PixelRule = PHOTO) -> Measured | None:
    """Which pixels of an image file are measured; None where all are. Raises as `read_raster`.

    A file is decoded only where its header says that some may not be.
    """
    if not may_lack_pixels(path):
        return None
    if not is_photo(path) or is_tiff(path):
        raster = read_raster(path)
        if rule.values != "photo":
            selected_bands(raster, rule, str(path))
        return measured_by(raster, rule)
    with opened(path) as image:
        return _opaque(upright(image))


def _photo(path: Path) -> Pixels:
    if path.suffix.lower() in JPEG2000_SUFFIXES:
        return _photo_of_raster(path)
    return read_image(path)


def _photo_of_raster(path: Path) -> Pixels:
    raster = read_raster(path)
    if raster.values.dtype != np.uint8 or raster.bands not in (1, 3):
        kind = f"{raster.bands} band{'s' * (raster.bands != 1)} of type {raster.values.dtype}"
        what = f"has {kind}, and the model was trained on photographs (8 bits, grey or RGB)"
        raise ImageError(path, what, "train on such images, or save it as those were")
    return pixels_of(select_bands(raster, (), str(path)), _EIGHT_BITS)


def _decoded_photo(image: ImageInput, channels: int) -> MeasuredImage:
    if isinstance(image, str | Path):
        path = Path(image)
        if path.suffix.lower() in JPEG2000_SUFFIXES and channels == 3:
            return MeasuredImage(_photo_of_raster(path), valid_pixels(path))
        return MeasuredImage(decode_image(path, channels), valid_pixels(path))
    hidden = _hidden(image)
    pixels = decode_image(image if hidden is None else np.asarray(image), channels)
    if isinstance(image, Image.Image) and image.has_transparency_data:
        return MeasuredImage(pixels, _opaque(upright(image)))
    return MeasuredImage(pixels, None if hidden is None or not hidden.any() else ~hidden)


def _hidden(image: ImageInput) -> Measured | None:
    """Where a masked array hides all bands of a pixel, as rasterio reads nodata; None for anything else."""
    if not isinstance(image, np.ma.MaskedArray):
        return None
    mask = np.ma.getmaskarray(image)
    hidden: Measured = mask if mask.ndim < 3 else np.logical_and.reduce(mask, axis=2)
    return hidden


def _opaque(image: Image.Image) -> Measured | None:
    """Where an image of Pillow's is not wholly transparent; None where it is nowhere."""
    opaque: Measured = np.asarray(image.convert("RGBA"))[..., 3] > 0
    return None if opaque.all() else opaque


def _raster_of(image: ImageInput) -> Raster:
    if isinstance(image, str | Path):
        return read_raster(Path(image))
    if isinstance(image, Image.Image):
        path = Path(getattr(image, "filename", "") or "the image")
        with named_errors(path):
            check_pixels(path, image.width * image.height)
            return checked(raster_of_pillow(image, path), path)
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3) or not image.size:
        raise TypeError(f"an image is a path, a Pillow image or an array (height, width, bands), not {type(image)}")
    return checked(Raster(as_bands(np.asarray(image)), masked=_hidden(image)), Path("the image"))
