"""Reading picture files safely: bounded in bytes and pixels, every pixel format, one line when it fails.

Pillow decodes. The checks around it are ours because Pillow alone warns about a decompression bomb instead of
refusing it, clips 16-bit greys instead of scaling them, drops transparency, and raises many exceptions
on damaged files.
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from cyclemlp.errors import DataError

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
_SIDEWAYS = (5, 6, 7, 8)
_PNG_METADATA = ("exif", "Raw profile type exif", "XML:com.adobe.xmp")
# What Pillow raised on some 60,000 files of every format with random bytes changed or cut off.
_DAMAGED = (OSError, SyntaxError, ValueError, struct.error)


class ImageError(DataError):
    """A picture or mask file is not usable. The message is `PATH WHAT; FIX`; `what` and `fix` stand alone too."""

    def __init__(self, message: str, *, what: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.what = what
        self.fix = fix


def list_images(folder: Path) -> list[Path]:
    """The picture files directly in `folder` by suffix (any case), sorted by name, without hidden files."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """The picture as RGB, uint8, shape (height, width, 3), turned as its EXIF orientation says.

    Grey, palette, CMYK and 16-bit pictures are converted (16-bit values scaled, not clipped), transparent
    pixels laid on white. Raises DataError when the file is missing, empty, damaged, no picture, or over the
    limits.
    """
    with _opened(path) as image:
        upright = _upright(image)
        if upright.mode.startswith("I;16"):
            grey = _sixteen_to_eight_bits(np.asarray(upright))
            return np.repeat(grey[..., None], 3, axis=2)
        if upright.mode in ("I", "F"):
            raise _error(path, "has 32-bit pixels", "save it with 8 or 16 bits per channel")
        return np.array(_rgb_on_white(upright))


def read_mask(path: Path) -> npt.NDArray[np.uint8]:
    """The class of each pixel, uint8, shape (height, width), turned as its EXIF orientation says.

    Raises DataError as `read_image` does, when the file holds colours instead of class numbers, and for
    numbers over 255.
    """
    with _opened(path) as image:
        _check_holds_numbers(path, image.mode)
        numbers = np.array(_upright(image))
    if numbers.dtype != np.uint8 and numbers.max() > 255:
        what = f"holds the value {numbers.max()}, but masks hold class numbers 0-254 and 255 for ignore"
        raise _error(path, what, "renumber its classes")
    return numbers.astype(np.uint8)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) after EXIF orientation, from the header. Raises DataError as `read_image` does."""
    with _opened(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # Pillow has turned it already
            return height, width
        # getexif() of a PNG without EXIF decodes all pixels in search of it, too much for a look at a header.
        if image.format == "PNG" and not any(key in image.info for key in _PNG_METADATA):
            return height, width
        return (width, height) if _orientation(image) in _SIDEWAYS else (height, width)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The opened but not yet decoded picture, found to be within the limits; failures become DataError."""
    try:
        _check_bytes(path)
        with warnings.catch_warnings():
            # Pillow warns of sizes we allow, and of odd metadata that does not touch the pixels.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with Image.open(path, formats=FORMATS) as image:
                _check_pixels(path, image.width * image.height)
                yield image
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(path) from error
    except UnidentifiedImageError as error:
        raise _error(path, "is no picture of a known format", f"convert it to {'/'.join(FORMATS)}") from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise _error(path, f"cannot be read: {error.strerror}", "check the path and its permissions") from error
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _error(path, f"is damaged or incomplete ({reason})", "replace or remove it") from error


def _error(path: Path, what: str, fix: str) -> ImageError:
    return ImageError(f"{path} {what}; {fix}", what=what, fix=fix)


def _check_bytes(path: Path) -> None:
    size = path.stat().st_size
    if size == 0:
        raise _error(path, "is empty (0 bytes)", "replace or remove it")
    if size > MAX_FILE_BYTES:
        what = f"has {size / 2**20:.0f} MB, over the limit of {MAX_FILE_BYTES // 2**20} MB"
        raise _error(path, what, "cut it into tiles")


def _check_pixels(path: Path, pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise _too_many_pixels(path)


def _too_many_pixels(path: Path) -> ImageError:
    what = f"unpacks to more than {MAX_PIXELS // 10**6} million pixels, the limit"
    return _error(path, what, "cut it into tiles or remove it")


def _check_holds_numbers(path: Path, mode: str) -> None:
    if mode not in ("1", "L", "P") and not mode.startswith("I;16"):
        what = f"is a {mode} picture, but a mask has one channel (grey or palette) that holds class numbers"
        raise _error(path, what, "convert its colours to class numbers")


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_ORIENTATION_TAG)
    return value if isinstance(value, int) else 1


def _upright(image: Image.Image) -> Image.Image:
    """As ImageOps.exif_transpose, but without rewriting the EXIF block, which fails where that is odd."""
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _sixteen_to_eight_bits(grey: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257


def _rgb_on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
