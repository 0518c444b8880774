"""Images as their files store them: any number of bands, and values of 8 bits, 16 bits or floating point.

`cyclemlp.data.images` reads photographs, which become RGB. Here nothing is converted: `read_raster` returns the values,
and `cyclemlp.data.pixel_rule` says how they become pixels. TIFF files are read by rasterio (extra `geo`) or tifffile
(extra `micro`), whichever is installed, JPEG 2000 by rasterio, arrays in `.npy` and `.npz` by numpy, everything else
by Pillow.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyclemlp.data.arrays import read_array
from cyclemlp.data.gdal import JPEG2000, TIFF, described_bands, masked_by_file, opened_raster
from cyclemlp.data.image_errors import MAX_BANDS, ImageError, check_pixels, named_errors, too_many_bands
from cyclemlp.data.images import (
    ARRAY_SUFFIXES,
    JPEG2000_SUFFIXES,
    check_frames,
    is_tiff,
    looks_transparent,
    opened,
    rawmode,
    read_image,
    upright,
)
from cyclemlp.data.tiff_tags import (
    EXTRA_SAMPLES,
    ORIENTATION,
    PHOTOMETRIC,
    SAMPLES,
    Tags,
    alpha_band,
    band_names,
    first_page,
    further_pages,
    has_mask_page,
    is_rgb_in_jpeg,
    nodata_value,
    unsupported,
)
from cyclemlp.data.windows import Window, strips_of, windowed_size
from cyclemlp.errors import MissingExtraError

Values = npt.NDArray[Any]
"""(height, width, bands), of one of `VALUE_TYPES`."""
Measured = npt.NDArray[np.bool_]
"""Whether each pixel (height, width) is measured and not transparent."""
VALUE_TYPES = ("uint8", "uint16", "int16", "float32")
_TO_RGB = frozenset({3, 5, 6, 8})
"""Photometric interpretations that only Pillow turns into RGB: palette, CMYK, YCbCr, CIELab."""
_TURNED: Mapping[int, Callable[[Values], Values]] = {
    2: np.fliplr,
    3: lambda values: np.rot90(values, 2),
    4: np.flipud,
    5: lambda values: values.swapaxes(0, 1),
    6: lambda values: np.rot90(values, 3),
    7: lambda values: np.rot90(values, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""How the values of a file become upright, by the value of its orientation tag."""
_ONE_PLANE = {"YX": "YX", "YXS": "YXS", "SYX": "SYX", "CYX": "SYX", "YXC": "YXS"}
"""Axes of tifffile that are one image, and what they mean."""


@dataclass(frozen=True, eq=False)
class Raster:
    """The values that a file stores, turned as its orientation says."""

    values: Values
    """(height, width, bands)"""
    names: tuple[str, ...] = ()
    """The name of each band, where the file has them."""
    nodata: float | None = None
    """The value that stands for no measurement, where the file names one."""
    alpha: int | None = None
    """The place of the band that the file marks as transparency, from 0."""
    masked: Measured | None = None
    """Where a mask of the file's own hides pixels."""

    @property
    def bands(self) -> int:
        """The number of bands that are not transparency."""
        return self.values.shape[2] - (self.alpha is not None)

    def valid(self, bands: tuple[int, ...] = ()) -> Measured | None:
        """Whether each pixel is measured in the bands of these numbers, from 1, or in all; None where all are."""
        places = [band - 1 for band in bands] or [place for place in range(self.values.shape[2]) if place != self.alpha]
        colours = self.values if len(places) == self.values.shape[2] else self.values[..., places]
        kept = np.ones(colours.shape[:2], np.bool_)
        if self.nodata is not None:
            with np.errstate(over="ignore"):  # a value beyond the type of the bands
                missing = np.isnan(colours) if np.isnan(self.nodata) else colours == self.nodata
            kept &= ~missing.all(axis=2)
        if self.alpha is not None and self.alpha not in places:
            kept &= self.values[..., self.alpha] > 0
        if self.masked is not None:
            kept &= ~self.masked
        if colours.dtype.kind == "f":
            kept &= np.isfinite(colours).all(axis=2)
        return None if kept.all() else kept


def read_raster(path: Path) -> Raster:
    """The values in an image file.

    A band that a TIFF marks as transparency, but that does not look like it, is one of its bands: GDAL marks the fourth
    of four bands of 8 bits. Raises ImageError as `read_image` does, and for values of another type, more than 32 bands
    and several pages; MissingExtraError where a file needs a reader that is not installed.
    """
    suffix = path.suffix.lower()
    if suffix in ARRAY_SUFFIXES:
        return checked(Raster(np.array(as_bands(read_array(path)))), path)
    if suffix in JPEG2000_SUFFIXES:
        return with_true_alpha(checked(_jpeg2000(path), path))
    if is_tiff(path):
        return with_true_alpha(checked(read_tiff(path), path))
    return checked(_by_pillow(path), path)


def with_true_alpha(raster: Raster) -> Raster:
    """The raster without the mark of a band that is not transparency, but values."""
    measured = raster.alpha is not None and not looks_transparent(raster.values[..., raster.alpha])
    return replace(raster, alpha=None) if measured else raster


def checked(raster: Raster, path: Path) -> Raster:
    """The raster itself. Raises ImageError where its type or number of bands is not supported."""
    kind, bands = raster.values.dtype.name, raster.values.shape[2]
    if kind not in VALUE_TYPES:
        raise ImageError(path, f"has values of type {kind}", f"convert them to {', '.join(VALUE_TYPES)}")
    if bands > MAX_BANDS:
        raise too_many_bands(path, bands)
    return raster


def check_bands(tags: Tags, path: Path) -> None:
    """Raise ImageError where a TIFF says that it has far too many bands: decoding a damaged number takes hours."""
    if (bands := _number(tags, SAMPLES) or 1) > MAX_BANDS + 1:
        raise too_many_bands(path, bands)


def as_bands(values: Values) -> Values:
    """An array (H, W) or (H, W, bands) with its bands last, booleans and native byte order taken care of."""
    values = values[..., None] if values.ndim == 2 else values
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _by_pillow(path: Path) -> Raster:
    with opened(path) as image:
        check_frames(image, path)
        return raster_of_pillow(image, path)


def raster_of_pillow(image: Image.Image, path: Path) -> Raster:
    """The values of an image that Pillow has opened, as those of its file. Raises ImageError about `path`."""
    if ";16" in rawmode(image) and image.mode in ("RGB", "RGBA"):
        what = "is a PNG of 16 bits in each of several bands, of which Pillow reads the upper 8"
        raise ImageError(path, what, "save it as TIFF, or as .npy")
    turned = upright(image)
    if turned.mode == "I":
        raise ImageError(path, "has 32-bit pixels", "save it with 8 or 16 bits per channel, or as float32")
    if turned.mode in ("L", "RGB", "F") or turned.mode.startswith("I;16"):
        return Raster(as_bands(np.array(turned)))
    if turned.has_transparency_data:
        return Raster(np.array(turned.convert("RGBA")), alpha=3)
    return Raster(as_bands(np.array(turned.convert("L" if turned.mode == "1" else "RGB"))))


def read_window(path: Path, window: Window) -> Raster:
    """The values in a window of an image that is read in windows. Raises as `read_tiff`."""
    return _jpeg2000(path, window) if path.suffix.lower() in JPEG2000_SUFFIXES else read_tiff(path, window)


def read_tiff(path: Path, window: Window | None = None) -> Raster:
    """The values in a TIFF file, of whatever type, or in a window of a plain one (`cyclemlp.data.windows`).

    Raises as `read_raster`, which refuses further types and bands.
    """
    with named_errors(path), path.open("rb") as file:
        tags = first_page(file)
        pages, has_mask = 1 + further_pages(file), has_mask_page(file)
    check_bands(tags, path)
    if _number(tags, PHOTOMETRIC) in _TO_RGB and window is None:
        hidden = _hidden(path, tags) if has_mask or _mask_file(path).exists() else None
        return replace(_by_pillow(path), nodata=nodata_value(tags) if is_rgb_in_jpeg(tags) else None, masked=hidden)
    if pages > 1 and has_mask:
        raise ImageError(path, f"has {pages} pages, some of which are masks", "save each as a file of its own")
    values, masked = (
        (_by_tifffile(path, pages), None) if pages > 1 else _one_page(path, tags, window, has_mask=has_mask)
    )
    if _number(tags, PHOTOMETRIC) == 0 and values.dtype.kind == "u":
        values = np.iinfo(values.dtype).max - values
    values, masked = _upright(values, tags), None if masked is None else _upright(masked[..., None], tags)[..., 0]
    alpha = alpha_band(tags) if EXTRA_SAMPLES in tags else None
    names = band_names(tags)
    names = names if len(names) == values.shape[2] else ()
    return Raster(np.ascontiguousarray(values), names, nodata_value(tags), alpha, masked)


def _upright(values: Values, tags: Tags) -> Values:
    turn = _TURNED.get(_number(tags, ORIENTATION) or 1)
    return values if turn is None else turn(values)


def _hidden(path: Path, tags: Tags) -> Measured | None:
    """Where a mask of the file hides pixels of an image that Pillow reads. Raises MissingExtraError."""
    with named_errors(path), opened_raster(path, TIFF) as source:
        masked = masked_by_file(source)
    return None if masked is None else _upright(masked[..., None], tags)[..., 0]


def _mask_file(path: Path) -> Path:
    """Where GDAL looks for the mask of a TIFF that has none in it."""
    return path.with_name(f"{path.name}.msk")


def _one_page(path: Path, tags: Tags, window: Window | None, *, has_mask: bool) -> tuple[Values, Measured | None]:
    """Values, and where a mask of the file's own hides them.

    By rasterio, which knows every compression, or else by tifffile, or else by Pillow what it does not squash. Masks
    are read by rasterio alone.
    """
    try:
        return _by_rasterio(path, window)
    except MissingExtraError:
        if has_mask:
            raise
    try:
        return _by_tifffile(path, 1), None
    except ModuleNotFoundError:
        bands, bits = _number(tags, SAMPLES) or 1, _number(tags, 258)
        whole = bits == 8 and (bands == 3 or (bands == 4 and _number(tags, EXTRA_SAMPLES) == 2))
        if bands == 1 or whole:
            return _by_pillow(path).values, None
        raise MissingExtraError("tifffile or rasterio", "micro") from None


def _by_rasterio(path: Path, window: Window | None = None) -> tuple[Values, Measured | None]:
    with named_errors(path), opened_raster(path, TIFF) as source:
        from rasterio.windows import Window as Part

        part = Part(0, 0, source.width, source.height) if window is None else Part.from_slices(*window)
        check_pixels(path, part.width * part.height)
        return np.moveaxis(source.read(window=part), 0, -1), masked_by_file(source, window=part)


def _jpeg2000(path: Path, window: Window | None = None) -> Raster:
    with named_errors(path), opened_raster(path, JPEG2000) as source:
        from rasterio.windows import Window as Part

        part = Part(0, 0, source.width, source.height) if window is None else Part.from_slices(*window)
        check_pixels(path, part.width * part.height)
        values = np.moveaxis(source.read(window=part), 0, -1)
        names, alpha = described_bands(source)
        return Raster(values, names, source.nodata, alpha, masked_by_file(source, window=part))


def _by_tifffile(path: Path, pages: int) -> Values:
    try:
        import tifffile
    except ModuleNotFoundError:
        if pages == 1:
            raise
        raise MissingExtraError("tifffile", "micro") from None

    with named_errors(path), tifffile.TiffFile(path) as file:
        series = file.series[0]
        if series.is_multifile:
            what = "is a part of an OME-TIFF whose other planes are in other files"
            raise ImageError(path, what, "save the image with all its planes in one file")
        axes = "".join(
            axis for axis, length in zip(series.axes, series.shape, strict=True) if length > 1 or axis in "YX"
        )
        meaning = _ONE_PLANE.get(axes)
        if meaning is None:
            sizes = " x ".join(map(str, series.shape))
            what = f"has {pages} pages or planes (axes {series.axes}, {sizes}), and an image has one"
            raise ImageError(path, what, "save each as a file of its own")
        lengths = dict(zip(series.axes, series.shape, strict=True))
        check_pixels(path, lengths["Y"] * lengths["X"])
        values = as_bands(np.squeeze(series.asarray()).reshape([lengths[axis] for axis in axes]))
        return np.moveaxis(values, 0, -1) if meaning == "SYX" else values


def _number(tags: Tags, tag: int) -> int | None:
    value = tags.get(tag)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None


def is_photo(path: Path) -> bool:
    """Whether `read_image` reads a file without leaving out or squashing anything: 8 bits, grey or RGB. By its header.

    Raises ImageError for a file that is no image.
    """
    if path.suffix.lower() in ARRAY_SUFFIXES | JPEG2000_SUFFIXES:
        return False
    if is_tiff(path):
        with named_errors(path), path.open("rb") as file:
            tags = first_page(file)
            if further_pages(file):
                return False
        eight = _number(tags, 258) in (1, 8, None) and _number(tags, 339) in (1, None)
        return eight and unsupported(tags) is None
    with opened(path) as image:
        return isinstance(image, Image.Image) and ";16" not in rawmode(image) and image.mode not in ("I", "F", "I;16")


def decoded_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image whose pixels are all decoded, photograph or not. Raises as `read_raster` does."""
    if (size := windowed_size(path)) is not None:
        for window in strips_of(size):
            checked(read_window(path, window), path)
        return size
    plain = is_photo(path) and not has_further_band(path)
    height, width = (read_image(path) if plain else read_raster(path).values).shape[:2]
    return height, width


def has_further_band(path: Path) -> bool:
    """Whether a TIFF has a band next to its colours: transparency, or values that are marked as such. By its header."""
    if path.suffix.lower() in ARRAY_SUFFIXES | JPEG2000_SUFFIXES or not is_tiff(path):
        return False
    with named_errors(path), path.open("rb") as file:
        tags = first_page(file)
    return _number(tags, PHOTOMETRIC) not in _TO_RGB and _number(tags, SAMPLES) in (2, 4)


def may_lack_pixels(path: Path) -> bool:
    """Whether a file can mark pixels as not measured, by its header: nodata, transparency, a mask, or no numbers."""
    suffix = path.suffix.lower()
    if suffix in JPEG2000_SUFFIXES:
        return True
    if suffix in ARRAY_SUFFIXES:
        return read_array(path).dtype.kind == "f"
    if not is_tiff(path):
        with opened(path) as image:
            return image.has_transparency_data
    with named_errors(path), path.open("rb") as file:
        tags, masked = first_page(file), has_mask_page(file)
    masked |= _mask_file(path).exists()
    return masked or alpha_band(tags) is not None or nodata_value(tags) is not None or _number(tags, 339) == 3
