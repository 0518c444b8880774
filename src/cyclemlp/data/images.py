"""The only image decoder: files, Pillow images and arrays become RGB by the same rules.

Pillow decodes. The checks around it are ours because Pillow alone only warns about a decompression bomb, clips 16-bit
grey values instead of scaling them, drops transparency, and raises many different exceptions on damaged files.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from cyclemlp.data.arrays import read_array
from cyclemlp.data.folders import entries_of
from cyclemlp.data.gdal import JPEG2000, opened_raster
from cyclemlp.data.image_errors import FORMATS, ImageError, UnknownBandsError, check_bytes, check_pixels, named_errors
from cyclemlp.data.tiff_tags import PHOTOMETRIC, TIFF_HEIGHT, TIFF_WIDTH, first_page, further_pages, unsupported
from cyclemlp.errors import DataError

Pixels = npt.NDArray[np.uint8]
ImageInput = str | Path | Image.Image | npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""What `decode_image` accepts: the path of an image file, a Pillow image, or an array (H, W, C) or (H, W)."""

ARRAY_SUFFIXES = frozenset({".npy", ".npz"})
"""Arrays of numpy, (height, width) or (height, width, bands)."""
JPEG2000_SUFFIXES = frozenset({".jp2", ".j2k"})
"""Read by rasterio, with all their bands and bits."""
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
IMAGE_SUFFIXES = _SUFFIXES | ARRAY_SUFFIXES | JPEG2000_SUFFIXES

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = Image.Transpose
_UPRIGHT = {
    2: _TRANSPOSE.FLIP_LEFT_RIGHT,
    3: _TRANSPOSE.ROTATE_180,
    4: _TRANSPOSE.FLIP_TOP_BOTTOM,
    5: _TRANSPOSE.TRANSPOSE,
    6: _TRANSPOSE.ROTATE_270,
    7: _TRANSPOSE.TRANSVERSE,
    8: _TRANSPOSE.ROTATE_90,
}
SIDEWAYS, SAME_SIZE = (5, 6, 7, 8), (2, 3, 4)
"""EXIF orientations that swap width and height; those that turn or mirror an image within its size."""
_PNG_METADATA = ("exif", "Raw profile type exif", "XML:com.adobe.xmp")
TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MIN_OF_16_BITS = 2**14
"""An image of 16-bit values that are all smaller has 10, 12 or 14 bits, and would be dark or black."""
_MIN_EXTREME_ALPHA = 0.5
"""Share of the pixels of a TIFF that transparency leaves whole or hides; less is a band of measured values."""


def list_images(folder: Path) -> list[Path]:
    """The image files directly in `folder`, known by their suffix in any case, sorted by name, without hidden files."""
    return sorted(
        path
        for path in entries_of(folder)
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def read_image(path: Path) -> Pixels:
    """The image in a file as RGB, uint8, shape (height, width, 3), turned as its EXIF orientation says.

    Grey, palette, CMYK and 16-bit images are converted (16-bit values are scaled, not clipped); transparent pixels
    are composited on white. Raises ImageError if the file is missing, empty, damaged, not an image, or over the
    limits.
    """
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return _photo_of_array(path)
    with opened(path) as image:
        check_frames(image, path)
        return _as_rgb(image, path)


def decode_image(image: ImageInput, channels: int = 3) -> Pixels:
    """A path, a Pillow image or an array as uint8 pixels (height, width, channels), by the rules of `read_image`.

    Arrays are (height, width, channels) or, for grey, (height, width), of uint8 or uint16 values; an array of uint8
    with all channels is returned as it is, not as a copy. Only an array can have other than 3 channels. The limit on
    the number of pixels guards against decompression bombs and does not apply to arrays. Raises DataError for an
    unusable image and TypeError for anything else.
    """
    if isinstance(image, str | Path):
        pixels = read_image(Path(image))
    elif isinstance(image, Image.Image):
        path = Path(getattr(image, "filename", "") or "the image")
        with named_errors(path):
            check_pixels(path, image.width * image.height)
            pixels = _as_rgb(image, path)
    else:
        pixels = _of_array(image, channels)
    if pixels.shape[2] != channels:
        raise DataError(
            f"an image with {pixels.shape[2]} channels, but the model was trained on {channels}: give an"
            f" array (height, width, {channels})"
        )
    return pixels


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) after EXIF orientation, from the header. Raises ImageError as `read_image` does."""
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return read_array(path).shape[:2]
    if path.suffix.lower() in JPEG2000_SUFFIXES:
        with named_errors(path), opened_raster(path, JPEG2000) as source:
            return source.height, source.width
    try:
        return _pillow_size(path)
    except UnknownBandsError:
        with named_errors(path), path.open("rb") as file:
            tags = first_page(file)
            size = int(tags[TIFF_HEIGHT]), int(tags[TIFF_WIDTH])
        return size[::-1] if tags.get(_ORIENTATION_TAG) in SIDEWAYS else size


def _pillow_size(path: Path) -> tuple[int, int]:
    with opened(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # Pillow has turned it already
            return height, width
        # getexif() of a PNG without EXIF decodes all pixels in search of it, too much for a look at a header.
        if image.format == "PNG" and not any(key in image.info for key in _PNG_METADATA):
            return height, width
        return (width, height) if _orientation(image) in SIDEWAYS else (height, width)


def exif_orientation(path: Path) -> int:
    """The value 1 to 8 of an image's orientation tag, by which it is turned when it is read; 1 without the tag.

    Raises ImageError as `read_image` does.
    """
    if path.suffix.lower() in ARRAY_SUFFIXES | JPEG2000_SUFFIXES:
        return 1
    try:
        with opened(path) as image:
            if image.format == "PNG" and not any(key in image.info for key in _PNG_METADATA):
                return 1
            value = _orientation(image)
    except UnknownBandsError:
        with named_errors(path), path.open("rb") as file:
            value = int(first_page(file).get(_ORIENTATION_TAG, 1))
    return value if value in _UPRIGHT else 1


def is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFF files do. Raises ImageError where it cannot be read."""
    with named_errors(path), path.open("rb") as file:
        return file.read(4) in TIFF_BEGINNINGS


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The opened but not yet decoded image, within the limits."""
    with named_errors(path):
        check_bytes(path)
        with _identified(path) as image:
            check_pixels(path, image.width * image.height)
            if image.format == "PNG":
                _check_chunks(path)
            elif image.format == "BMP":
                _check_bits(image, path)
            yield image


def _check_chunks(path: Path) -> None:
    """Raise ImageError where a chunk of a PNG says that it is larger than its file: Pillow takes memory for it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        place = 8
        while file.seek(place) and len(length := file.read(4)) == 4:
            if (chunk := int.from_bytes(length)) > size:
                what = f"is damaged or incomplete (a chunk of {chunk} bytes)"
                raise ImageError(path, what, "replace or remove it")
            place += 12 + chunk


def _check_bits(image: Image.Image, path: Path) -> None:
    """Raise ImageError where Pillow would unpack a BMP by other bits than it has.

    It does so where the palette is black and white, or 16 levels of grey, and pixels have more bits than that needs.
    """
    with path.open("rb") as file:
        header = file.read(30)
    place = 24 if int.from_bytes(header[14:18], "little") == 12 else 28  # OS/2 had a shorter header
    bits = int.from_bytes(header[place : place + 2], "little")
    if {"1": 1, "L": 8}.get(image.mode, bits) != bits:
        what = f"has a palette of grey and {bits} bits for each pixel, which is read wrongly"
        raise ImageError(path, what, "save it as PNG")


def _identified(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        with path.open("rb") as file:
            if file.read(4) in TIFF_BEGINNINGS and (reason := unsupported(first_page(file))):
                raise UnknownBandsError(path, *reason) from None
        raise


def check_frames(image: Image.Image, path: Path) -> None:
    """Raise ImageError for what would be left out: further pages, further images of an animation."""
    if isinstance(image, TiffImageFile):
        with path.open("rb") as file:
            further = further_pages(file)
    else:  # a JPEG may have previews of itself, which are not worth a word
        further = getattr(image, "n_frames", 1) - 1 if image.format in ("PNG", "WEBP") else 0
    if further > 0:
        what = f"has {further + 1} pages or frames, and an image has one"
        raise ImageError(path, what, "save each as a file of its own")


def _as_rgb(image: Image.Image, path: Path) -> Pixels:
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if reason := unsupported(tags):
        raise ImageError(path, *reason)
    deep = ";16" in rawmode(image) and image.mode in ("RGB", "RGBA")
    inverted = image.mode == "I;16" and tags.get(PHOTOMETRIC) == 0
    turned = upright(image)
    if turned.mode.startswith("I;16"):
        values = np.asarray(turned)
        grey = _sixteen_to_eight_bits(np.uint16(65535) - values if inverted else values, path)
        return np.repeat(grey[..., None], 3, axis=2)
    if turned.mode in ("I", "F"):
        raise ImageError(path, "has 32-bit pixels", "save it with 8 or 16 bits per channel")
    if deep and np.asarray(turned)[..., :3].max() < _MIN_OF_16_BITS >> 8:  # Pillow has dropped the lower 8 bits
        raise _dark(path)
    if turned.has_transparency_data:
        turned = _on_white(turned, path, checked=bool(tags))
    return np.array(turned.convert("RGB"))


def _on_white(image: Image.Image, path: Path, *, checked: bool) -> Image.Image:
    """Composited on white; if `checked`, the transparency has to look like one."""
    rgba = image.convert("RGBA")
    if checked:
        check_transparency(np.asarray(rgba)[..., 3], path)
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)


def check_transparency(alpha: npt.NDArray[Any], path: Path) -> None:
    """Raise ImageError where a band that is marked as transparency is none: near infrared, for example."""
    if not looks_transparent(alpha):
        what = "has a last band that is marked as transparency, but holds values like those of an image"
        raise ImageError(path, what, "save the bands to use as a grey or RGB image")


def looks_transparent(alpha: npt.NDArray[Any]) -> bool:
    """Whether most values of a band are those of transparency: nothing, or all."""
    most = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1
    share = ((alpha == 0) | (alpha == most)).mean()
    return bool(share >= _MIN_EXTREME_ALPHA)


def rawmode(image: Image.Image) -> str:
    """How Pillow will unpack the pixels of an opened file, such as RGB;16B; nothing once it has."""
    tile = getattr(image, "tile", ())
    return str(tile[0].args) if tile else ""


def _photo_of_array(path: Path) -> Pixels:
    values = np.asarray(read_array(path))
    if values.dtype not in (np.uint8, np.uint16) or values.shape[2] not in (1, 3):
        what = f"holds {values.shape[2]} bands of type {values.dtype}, which are no photograph"
        raise ImageError(path, what, "use a model that was trained on such images")
    pixels = values if values.dtype == np.uint8 else _sixteen_to_eight_bits(values, path)
    return np.repeat(pixels, 3 // pixels.shape[2], axis=2)


def _of_array(values: object, channels: int) -> Pixels:
    if not isinstance(values, np.ndarray):
        given = type(values).__name__
        raise TypeError(f"an image is a path, a Pillow image or a numpy array of uint8 or uint16 values, not {given}")
    if values.ndim not in (2, 3) or values.dtype not in (np.uint8, np.uint16) or not values.size:
        raise DataError(
            f"an image of shape {values.shape} and type {values.dtype}: give an array (height, width, {channels}) or"
            " (height, width) of uint8 values 0 to 255 or uint16 values 0 to 65535"
        )
    pixels: Pixels = values if values.dtype == np.uint8 else _sixteen_to_eight_bits(values, Path("the image"))
    return np.repeat(pixels[..., None], channels, axis=2) if pixels.ndim == 2 else pixels


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_ORIENTATION_TAG)
    return value if isinstance(value, int) else 1


def upright(image: Image.Image) -> Image.Image:
    """As ImageOps.exif_transpose, but without rewriting the EXIF block, which fails where that is odd."""
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _sixteen_to_eight_bits(values: npt.NDArray[Any], path: Path) -> Pixels:
    if 0 < values.max() < _MIN_OF_16_BITS:
        raise _dark(path)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257


def _dark(path: Path) -> ImageError:
    what = "has 16-bit values that are all below a quarter of their range, as 10, 12 or 14 bits are, and would be black"
    return ImageError(
        path, what, "give the range, such as --value-range 0 4095, or multiply them so that white is 65535"
    )
