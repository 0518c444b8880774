"""Masks in TIFF files, as geographic and microscopy tools write them: read by their tags, since these decide what the
numbers are.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyclemlp.data.gdal import quiet
from cyclemlp.data.image_errors import ImageError, named_errors
from cyclemlp.data.images import image_size, is_tiff, opened, upright
from cyclemlp.data.mask_content import MaskContent
from cyclemlp.data.palettes import Colour
from cyclemlp.data.rasters import Raster, read_tiff
from cyclemlp.data.tiff_tags import (
    BITS,
    COMPRESSION,
    PHOTOMETRIC,
    Tags,
    first_page,
    further_pages,
    nodata_value,
    number_of,
)
from cyclemlp.data.windows import Window, windowed_size

_BLURRED = {6: "JPEG", 7: "JPEG", 34712: "JPEG 2000", 34892: "JPEG", 50001: "WebP", 50002: "JPEG XL"}
"""Compressions that may change values, by the number of the tag."""
_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE = 0, 1, 2, 3
_WHOLE_BITS = (1, 8, 16, 32, 64)


def mask_size(path: Path) -> tuple[int, int] | None:
    """(height, width) of a mask that is read in windows; None for any other. Raises ImageError."""
    return windowed_size(path, (_GREY, _RGB, _PALETTE))


def size_of_mask(path: Path) -> tuple[int, int]:
    """(height, width) of any mask of pixels. Raises ImageError."""
    return mask_size(path) or image_size(path)


def tiff_content(path: Path, window: Window | None = None) -> MaskContent:
    """The values of a mask in a TIFF file, or of a window of one that has a `mask_size`.

    Raises ImageError as `read_raster` does, and for a file that is no TIFF, that was compressed with a loss, whose
    white is 0, or that has several pages.
    """
    if not is_tiff(path):
        raise ImageError(
            path, "is no TIFF file, whatever its suffix", "give it the suffix of what it is, or make it again"
        )
    with named_errors(path), path.open("rb") as file:
        tags = first_page(file)
        pages = 1 + further_pages(file)
    _check(path, tags, pages)
    if number_of(tags, PHOTOMETRIC, _GREY) == _PALETTE:
        return _with_palette(path, tags) if window is None else _part_with_palette(path, tags, window)
    raster = read_tiff(path, window)
    values = raster.values
    if number_of(tags, BITS, 1) == 1:  # some readers scale them
        values = (values > 0).astype(np.uint8)
    opaque = None
    if raster.alpha is not None:
        most = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1
        opaque = values[..., raster.alpha] == most
        values = np.delete(values, raster.alpha, axis=2)
    nodata = _nodata(values, raster)
    return MaskContent(values[..., 0] if values.shape[2] == 1 else values, opaque=opaque, nodata=nodata)


def _check(path: Path, tags: Tags, pages: int) -> None:
    if (blurred := _BLURRED.get(number_of(tags, COMPRESSION, 1))) is not None:
        what = f"is compressed as {blurred}, which changes class numbers and colours"
        raise ImageError(
            path, what, "make it again with LZW, Deflate or no compression; converting keeps blurred values"
        )
    if pages > 1:
        raise ImageError(path, f"has {pages} pages, and a mask has one", "save each as a file of its own")
    photometric, bits = number_of(tags, PHOTOMETRIC, _GREY), number_of(tags, BITS, 1)
    if photometric == _WHITE_IS_ZERO:
        what = "says that 0 is white, so that readers disagree about which number a pixel has"
        raise ImageError(path, what, "save it with 0 as black (min-is-black), or as PNG")
    if photometric not in (_GREY, _RGB, _PALETTE) or (photometric != _PALETTE and bits not in _WHOLE_BITS):
        what = f"has {bits} bits in photometric interpretation {photometric}, which are no plain numbers"
        raise ImageError(path, what, "save it as grey, palette or RGB with 8 bits")


def _with_palette(path: Path, tags: Tags) -> MaskContent:
    """Numbers with the colours that the file's own table gives them."""
    with opened(path) as image:
        turned = upright(image)
        if turned.mode != "P":
            raise ImageError(path, f"has a palette that is read as {turned.mode}", "save it with 8 bits")
        colours = turned.getpalette("RGB") or []
        values = np.array(turned)
    table: dict[int, Colour] = {place: tuple(colours[3 * place : 3 * place + 3]) for place in range(len(colours) // 3)}
    return MaskContent(values, table, nodata=_equal(values, nodata_value(tags)))


def _part_with_palette(path: Path, tags: Tags, window: Window) -> MaskContent:
    import rasterio

    values = read_tiff(path, window).values[..., 0]
    with named_errors(path), quiet(), rasterio.open(path) as source:
        table: dict[int, Colour] = {number: (r, g, b) for number, (r, g, b, _) in source.colormap(1).items()}
    return MaskContent(values, table, nodata=_equal(values, nodata_value(tags)))


def _nodata(values: npt.NDArray[Any], raster: Raster) -> npt.NDArray[np.bool_] | None:
    """Where all bands hold the value that the file marks as no measurement, or no number; None for nowhere."""
    missing = _equal(values, raster.nodata)
    unmeasured = [] if raster.masked is None else [raster.masked]
    if values.dtype.kind == "f" and np.isnan(values).any():
        unmeasured.append(np.isnan(values).all(axis=-1))
    for each in unmeasured:
        missing = each if missing is None else missing | each
    return missing


def _equal(values: npt.NDArray[Any], nodata: float | None) -> npt.NDArray[np.bool_] | None:
    if nodata is None:
        return None
    found = values == nodata
    found = found if found.ndim == 2 else found.all(axis=-1)
    return found if found.any() else None
