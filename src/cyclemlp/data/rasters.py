"""Images as their files store them: any number of bands, and values of 8 bits, 16 bits or floating point.

`cyclemlp.data.images` reads photographs, which become RGB. Here nothing is converted: `read_raster` returns the values,
and `cyclemlp.data.pixel_rule` says how they become pixels. TIFF files are read by rasterio (extra `geo`) or tifffile
(extra `micro`), whichever is installed, arrays in `.npy` and `.npz` by numpy, everything else by Pillow.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyclemlp.data.gdal import quiet
from cyclemlp.data.images import (
    ARRAY_SUFFIXES,
    MAX_BANDS,
    ImageError,
    check_pixels,
    is_tiff,
    named_errors,
    opened,
    rawmode,
    read_array,
    read_image,
    too_many_bands,
    upright,
)
from cyclemlp.data.tiff_tags import (
    EXTRA_SAMPLES,
    ORIENTATION,
    PHOTOMETRIC,
    SAMPLE_FORMAT,
    SAMPLES,
    Tags,
    alpha_band,
    band_names,
    first_page,
    further_pages,
    nodata_value,
)
from cyclemlp.data.windows import Window, strips_of, windowed_size
from cyclemlp.errors import MissingExtraError

Values = npt.NDArray[Any]
"""(height, width, bands), of one of `VALUE_TYPES`."""
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

    @property
    def bands(self) -> int:
        """The number of bands that are not transparency."""
        return self.values.shape[2] - (self.alpha is not None)

    def valid(self) -> npt.NDArray[np.bool_] | None:
        """Whether each pixel (height, width) is measured and not transparent; None where all are."""
        colours = self.values if self.alpha is None else np.delete(self.values, self.alpha, axis=2)
        kept = np.ones(colours.shape[:2], np.bool_)
        if self.nodata is not None:
            missing = np.isnan(colours) if np.isnan(self.nodata) else colours == self.nodata
            kept &= ~missing.all(axis=2)
        if self.alpha is not None:
            kept &= self.values[..., self.alpha] > 0
        if colours.dtype.kind == "f":
            kept &= np.isfinite(colours).all(axis=2)
        return None if kept.all() else kept


def read_raster(path: Path) -> Raster:
    """The values in an image file.

    Raises ImageError as `read_image` does, and for values of another type, more than 32 bands and several pages;
    MissingExtraError where a TIFF needs a reader that is not installed.
    """
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return checked(Raster(np.array(as_bands(read_array(path)))), path)
    if is_tiff(path):
        return checked(read_tiff(path), path)
    return checked(_by_pillow(path), path)


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


def read_tiff(path: Path, window: Window | None = None) -> Raster:
    """The values in a TIFF file, of whatever type, or in a window of a plain one (`cyclemlp.data.windows`).

    Raises as `read_raster`, which refuses further types and bands.
    """
    with named_errors(path), path.open("rb") as file:
        tags = first_page(file)
        pages = 1 + further_pages(file)
    check_bands(tags, path)
    if _number(tags, PHOTOMETRIC) in _TO_RGB and window is None:
        return _by_pillow(path)
    values = _by_tifffile(path, pages) if pages > 1 else _one_page(path, tags, window)
    if _number(tags, PHOTOMETRIC) == 0 and values.dtype.kind == "u":
        values = np.iinfo(values.dtype).max - values
    turn = _TURNED.get(_number(tags, ORIENTATION) or 1)
    values = values if turn is None else turn(values)
    alpha = alpha_band(tags) if EXTRA_SAMPLES in tags else None
    names = band_names(tags)
    if len(names) != values.shape[2] - (alpha is not None):
        names = names[: values.shape[2] - (alpha is not None)] if len(names) == values.shape[2] else ()
    return Raster(np.ascontiguousarray(values), names, nodata_value(tags), alpha)


def _one_page(path: Path, tags: Tags, window: Window | None) -> Values:
    """By rasterio, which knows every compression, or else by tifffile, or else by Pillow what it does not squash."""
    try:
        return _by_rasterio(path, window)
    except ModuleNotFoundError:
        pass
    try:
        return _by_tifffile(path, 1)
    except ModuleNotFoundError:
        bands, bits = _number(tags, SAMPLES) or 1, _number(tags, 258)
        if bands == 1 or (bits == 8 and bands == 3):
            return _by_pillow(path).values
        raise MissingExtraError("tifffile or rasterio", "micro") from None


def _by_rasterio(path: Path, window: Window | None) -> Values:
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.windows import Window as Part

    with named_errors(path), quiet():
        try:
            with rasterio.open(path) as source:
                part = Part(0, 0, source.width, source.height) if window is None else Part.from_slices(*window)
                check_pixels(path, part.width * part.height)
                return np.moveaxis(source.read(window=part), 0, -1)
        except RasterioError as error:
            raise OSError(str(error)) from error


def _by_tifffile(path: Path, pages: int) -> Values:
    try:
        import tifffile
    except ModuleNotFoundError:
        if pages == 1:
            raise
        raise MissingExtraError("tifffile", "micro") from None

    with named_errors(path), tifffile.TiffFile(path) as file:
        series = file.series[0]
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


def without_alpha(raster: Raster) -> Raster:
    """The raster without the band that is marked as transparency."""
    if raster.alpha is None:
        return raster
    return replace(raster, values=np.delete(raster.values, raster.alpha, axis=2), alpha=None)


def is_photo(path: Path) -> bool:
    """Whether `read_image` reads a file without leaving out or squashing anything: 8 bits, grey or RGB. By its header.

    Raises ImageError for a file that is no image.
    """
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return False
    if is_tiff(path):
        with named_errors(path), path.open("rb") as file:
            tags = first_page(file)
            if further_pages(file):
                return False
        eight = _number(tags, 258) in (1, 8, None) and _number(tags, 339) in (1, None)
        bands, photometric = _number(tags, SAMPLES) or 1, _number(tags, PHOTOMETRIC)
        return eight and (photometric in _TO_RGB or bands in (1, 3) or alpha_band(tags) == bands - 1)
    with opened(path) as image:
        return isinstance(image, Image.Image) and ";16" not in rawmode(image) and image.mode not in ("I", "F", "I;16")


def may_lack_pixels(path: Path) -> bool:
    """Whether the header of a TIFF leaves it open that pixels are nodata, transparent or no number."""
    with named_errors(path), path.open("rb") as file:
        tags = first_page(file)
    return alpha_band(tags) is not None or nodata_value(tags) is not None or _number(tags, SAMPLE_FORMAT) == 3


def decoded_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image whose pixels are all decoded, photograph or not. Raises as `read_raster` does."""
    if (size := windowed_size(path)) is not None:
        for window in strips_of(size):
            checked(read_tiff(path, window), path)
        return size
    height, width = (read_image(path) if is_photo(path) else read_raster(path).values).shape[:2]
    return height, width
