"""The only image decoder: files, Pillow images and arrays become RGB by the same rules.

Pillow decodes. The checks around it are ours because Pillow alone only warns about a decompression bomb, clips 16-bit
grey values instead of scaling them, drops transparency, and raises many different exceptions on damaged files.
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from cyclemlp.data.problems import FileError
from cyclemlp.errors import DataError

Pixels = npt.NDArray[np.uint8]
ImageInput = str | Path | Image.Image | npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""What `decode_image` accepts: the path of an image file, a Pillow image, or an array (H, W, C) or (H, W)."""

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
MAX_PIXELS = 2**27
MAX_FILE_BYTES = 2**29

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
# What Pillow raised on some 60,000 files of every format with random bytes changed or cut off.
_DAMAGED = (OSError, SyntaxError, ValueError, struct.error)


class ImageError(FileError):
    """An image or mask file is unusable."""


def list_images(folder: Path) -> list[Path]:
    """The image files directly in `folder`, known by their suffix in any case, sorted by name, without hidden files."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def read_image(path: Path) -> Pixels:
    """The image in a file as RGB, uint8, shape (height, width, 3), turned as its EXIF orientation says.

    Grey, palette, CMYK and 16-bit images are converted (16-bit values are scaled, not clipped); transparent pixels
    are composited on white. Raises ImageError if the file is missing, empty, damaged, not an image, or over the
    limits.
    """
    with _opened(path) as image:
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
        with _named_errors(path):
            _check_pixels(path, image.width * image.height)
            pixels = _as_rgb(image, path)
    else:
        pixels = _of_array(image, channels)
    if pixels.shape[2] != channels:
        raise DataError(
            f"an image with {pixels.shape[2]} channels, but the model was trained on {channels}: give an"
            f" array (height, width, {channels})"
        )
    return pixels


def read_mask(path: Path) -> Pixels:
    """The class of each pixel, uint8, shape (height, width), turned as its EXIF orientation says.

    Raises ImageError as `read_image` does, and if the file holds colours instead of class numbers or numbers over 255.
    """
    with _opened(path) as image:
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I;16"):
            what = f"is a {image.mode} image, but a mask has one channel (grey or palette) that holds class numbers"
            raise ImageError(path, what, "convert its colours to class numbers")
        numbers = np.array(_upright(image))
    if numbers.dtype != np.uint8 and numbers.max() > 255:
        what = f"holds the value {numbers.max()}, but masks hold class numbers 0-254 and 255 for ignore"
        raise ImageError(path, what, "renumber its classes")
    return numbers.astype(np.uint8)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) after EXIF orientation, from the header. Raises ImageError as `read_image` does."""
    with _opened(path) as image:
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
    with _opened(path) as image:
        if image.format == "PNG" and not any(key in image.info for key in _PNG_METADATA):
            return 1
        return value if (value := _orientation(image)) in _UPRIGHT else 1


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The opened but not yet decoded image, within the limits."""
    with _named_errors(path):
        size = path.stat().st_size
        if size == 0:
            raise ImageError(path, "is empty (0 bytes)", "replace or remove it")
        if size > MAX_FILE_BYTES:
            what = f"has {size / 2**20:.0f} MB, over the limit of {MAX_FILE_BYTES // 2**20} MB"
            raise ImageError(path, what, "cut it into tiles")
        with Image.open(path, formats=FORMATS) as image:
            _check_pixels(path, image.width * image.height)
            yield image


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Whatever Pillow raises in the block becomes an ImageError about `path`."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes we allow, and of odd metadata that does not touch the pixels.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(path) from error
    except UnidentifiedImageError as error:
        what, fix = "is not an image in a known format", f"convert it to {'/'.join(FORMATS)}"
        raise ImageError(path, what, fix) from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ImageError(path, f"cannot be read: {error.strerror}", "check the path and its permissions") from error
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(path, f"is damaged or incomplete ({reason})", "replace or remove it") from error


def _as_rgb(image: Image.Image, path: Path) -> Pixels:
    upright = _upright(image)
    if upright.mode.startswith("I;16"):
        grey = _sixteen_to_eight_bits(np.asarray(upright))
        return np.repeat(grey[..., None], 3, axis=2)
    if upright.mode in ("I", "F"):
        raise ImageError(path, "has 32-bit pixels", "save it with 8 or 16 bits per channel")
    if upright.has_transparency_data:
        white = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(white, upright.convert("RGBA"))
    return np.array(upright.convert("RGB"))


def _of_array(values: object, channels: int) -> Pixels:
    if not isinstance(values, np.ndarray):
        given = type(values).__name__
        raise TypeError(f"an image is a path, a Pillow image or a numpy array of uint8 or uint16 values, not {given}")
    if values.ndim not in (2, 3) or values.dtype not in (np.uint8, np.uint16) or not values.size:
        raise DataError(
            f"an image of shape {values.shape} and type {values.dtype}: give an array (height, width, {channels}) or"
            " (height, width) of uint8 values 0 to 255 or uint16 values 0 to 65535"
        )
    pixels: Pixels = values if values.dtype == np.uint8 else _sixteen_to_eight_bits(values)
    return np.repeat(pixels[..., None], channels, axis=2) if pixels.ndim == 2 else pixels


def _check_pixels(path: Path, pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise _too_many_pixels(path)


def _too_many_pixels(path: Path) -> ImageError:
    what = f"unpacks to more than {MAX_PIXELS // 10**6} million pixels, the limit"
    return ImageError(path, what, "cut it into tiles or remove it")


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_ORIENTATION_TAG)
    return value if isinstance(value, int) else 1


def _upright(image: Image.Image) -> Image.Image:
    """As ImageOps.exif_transpose, but without rewriting the EXIF block, which fails where that is odd."""
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _sixteen_to_eight_bits(values: npt.NDArray[Any]) -> Pixels:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257
