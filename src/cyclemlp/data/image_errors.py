"""What makes an image file unusable, and the bounds that hold for all of them."""

import lzma
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cyclemlp.data.problems import FileError
from cyclemlp.errors import reason_of

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
MAX_PIXELS = 2**27
MAX_FILE_BYTES = 2**29
MAX_BANDS = 32
# What Pillow raised on some 60,000 files of every format with random bytes changed or cut off.
_DAMAGED = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, AttributeError, ArithmeticError, LookupError),
    *(RuntimeError, AssertionError, BufferError, struct.error, zlib.error, tokenize.TokenError),
    *(zipfile.BadZipFile, lzma.LZMAError),
)
"""What Pillow and its parsers raise on damaged files: all but a lack of memory."""


class ImageError(FileError):
    """An image or mask file is unusable."""


class UnknownBandsError(ImageError):
    """A TIFF file has bands that Pillow does not know, and can be read as a raster."""


def check_bytes(path: Path) -> None:
    """Raise ImageError for a file without content, or with more than are read."""
    size = path.stat().st_size
    if size == 0:
        raise ImageError(path, "is empty (0 bytes)", "replace or remove it")
    if size > MAX_FILE_BYTES:
        what = f"has {size / 2**20:.0f} MB, over the limit of {MAX_FILE_BYTES // 2**20} MB"
        raise ImageError(path, what, "cut it into tiles")


def ignore_harmless_warnings() -> None:
    """Pillow warns of sizes we allow and of odd metadata that does not touch the pixels, rasterio of missing places."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Whatever Pillow raises in the block becomes an ImageError about `path`."""
    try:
        with warnings.catch_warnings():
            ignore_harmless_warnings()
            yield
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(path) from error
    except UnidentifiedImageError as error:
        what, fix = "is not an image in a known format", f"convert it to {'/'.join(FORMATS)}"
        raise ImageError(path, what, fix) from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ImageError(path, f"cannot be read: {error.strerror}", "check the path and its permissions") from error
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; Pillow's own have no number
            raise ImageError(path, f"cannot be read: {error.strerror}", "check the disk it is on") from error
        reason = reason_of(error)
        raise ImageError(path, f"is damaged or incomplete ({reason})", "replace or remove it") from error


def too_many_bands(path: Path, bands: int) -> ImageError:
    """The refusal of an image with more bands than are read."""
    what = f"has {bands} bands, and {MAX_BANDS} are the most"
    return ImageError(path, what, "save fewer; an array is (height, width, bands)")


def check_pixels(path: Path, pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise _too_many_pixels(path)


def _too_many_pixels(path: Path) -> ImageError:
    what = f"unpacks to more than {MAX_PIXELS // 10**6} million pixels, the limit"
    return ImageError(path, what, "cut it into tiles or remove it")
