"""Which images are too large to decode for each sample, and are read in windows instead: by their header alone.

A window of a plain TIFF file, or of JPEG 2000, is what its image has there. rasterio reads it (extra `geo`).
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from cyclemlp.data.image_errors import named_errors
from cyclemlp.data.images import JPEG2000_SUFFIXES, image_size, is_tiff
from cyclemlp.data.tiff_tags import (
    ORIENTATION,
    PHOTOMETRIC,
    TIFF_HEIGHT,
    TIFF_WIDTH,
    Tags,
    first_page,
    further_pages,
    is_rgb_in_jpeg,
    number_of,
)

Window = tuple[slice, slice]
"""Rows and columns."""
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
SCENE_SUFFIXES = TIFF_SUFFIXES | JPEG2000_SUFFIXES
"""Of files that can be read in windows."""
WINDOWED_PIXELS = 2**23
"""Images with more pixels are read in windows, as they are predicted: a sample needs a small part of them."""
PLAIN_COLOURS = (1, 2)
"""Photometric interpretations of values that are what they seem: grey and RGB."""
STRIP_ROWS = 512
SHOWN_EDGE = 1024
"""Edge in pixels of the part of a large image that is shown to a person."""


def is_plain(path: Path, photometric: tuple[int, ...] = PLAIN_COLOURS) -> bool:
    """Whether a window of a TIFF is what its image has there: one page, upright, neither inverted nor a palette."""
    return _plain_tags(path, photometric) is not None


def windowed_size(path: Path, photometric: tuple[int, ...] = PLAIN_COLOURS) -> tuple[int, int] | None:
    """(height, width) of a file that is read in windows; None for any other. Raises ImageError."""
    suffix = path.suffix.lower()
    if suffix not in SCENE_SUFFIXES or find_spec("rasterio") is None:
        return None
    if suffix in JPEG2000_SUFFIXES:
        height, width = image_size(path)
    elif not is_tiff(path) or (tags := _plain_tags(path, photometric)) is None:
        return None
    else:
        height, width = (number_of(tags, tag, 0) for tag in (TIFF_HEIGHT, TIFF_WIDTH))
    return (height, width) if height * width > WINDOWED_PIXELS else None


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) of any image, as `image_size`, or larger than that allows. Raises ImageError."""
    return windowed_size(path) or image_size(path)


def strips_of(size: tuple[int, int]) -> Iterator[Window]:
    """All of an image, from top to bottom."""
    height, width = size
    for top in range(0, height, STRIP_ROWS):
        yield slice(top, min(height, top + STRIP_ROWS)), slice(0, width)


def middle_of(size: tuple[int, int]) -> Window:
    """The part of an image that is shown to a person."""
    starts = [max(0, (edge - SHOWN_EDGE) // 2) for edge in size]
    rows, columns = (slice(start, min(start + SHOWN_EDGE, edge)) for start, edge in zip(starts, size, strict=True))
    return rows, columns


def _plain_tags(path: Path, photometric: tuple[int, ...]) -> Tags | None:
    with named_errors(path), path.open("rb") as file:
        tags, more = first_page(file), further_pages(file)
    plain = number_of(tags, PHOTOMETRIC, 1) in photometric or is_rgb_in_jpeg(tags)
    return tags if plain and number_of(tags, ORIENTATION, 1) == 1 and not more else None
