"""What a TIFF file has beyond one image of three colours, by its tags: Pillow drops bands and pages without a word.

Pillow's reader of tags is used, without decoding: a file whose bands Pillow does not know can be named all the same.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from html import unescape
from itertools import islice
from typing import IO, Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

TIFF_WIDTH, TIFF_HEIGHT = 256, 257
BITS, COMPRESSION, PHOTOMETRIC, EXTRA_SAMPLES, SAMPLE_FORMAT = 258, 259, 262, 338, 339
ORIENTATION, SAMPLES = 274, 277
_SUBFILE_TYPE, _OLD_SUBFILE_TYPE = 254, 255
_REDUCED, _MASK = 1, 4
"""Bits of the subfile type: a smaller copy of another page, as pyramids and thumbnails are; a mask of another page."""
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
"""Bands by photometric interpretation: grey, RGB, palette, CMYK, YCbCr, CIELab."""
_YCBCR, _JPEG = 6, 7
_ALPHA = (1, 2)
_GDAL_METADATA, _GDAL_NODATA = 42112, 42113
_DESCRIPTION = re.compile(r'<Item name="DESCRIPTION" sample="(\d+)"[^>]*>([^<]*)</Item>')
_PLACES_AND_LENGTHS = ({273, 279}, {324, 325})
"""Tags of where the strips or tiles of a page are."""
_MAX_PAGES = 64
_BIG_TIFF = 43

Tags = Mapping[int, Any]


def unsupported(tags: Tags) -> tuple[str, str] | None:
    """Why the bands of a page cannot be read as an image, and what to do; None where they can."""
    bands, photometric = number_of(tags, SAMPLES, 1), number_of(tags, PHOTOMETRIC, 1)
    colours = _COLOURS.get(photometric, bands)
    extra = bands - min(colours, bands)
    marks = tags.get(EXTRA_SAMPLES, ())
    alpha = extra == 1 and (not marks or marks[0] in _ALPHA)
    if extra and not alpha:
        what = f"has {bands} bands, of which an image has {colours}, or one more that is marked as transparency"
        return what, "save the bands to use as a grey or RGB image"
    if number_of(tags, SAMPLE_FORMAT, 1) == 2:
        return "has values with a sign", "save it as unsigned 8-bit or 16-bit values"
    return None


def first_page(file: IO[bytes]) -> Tags:
    """The tags of the first page of an open TIFF file. Raises what Pillow raises on a damaged one."""
    return next(_pages(file), {})


def further_pages(file: IO[bytes]) -> int:
    """How many pages follow the first, smaller copies and masks of others not counted; the file's position is kept."""
    position = file.tell()
    try:
        return sum(not _is_reduced(tags) and not _is_mask(tags) for tags in islice(_pages(file), 1, None))
    finally:
        file.seek(position)


def has_mask_page(file: IO[bytes]) -> bool:
    """Whether one of the pages says which pixels of the first are measured, as GDAL writes it; keeps the position."""
    position = file.tell()
    try:
        return any(map(_is_mask, _pages(file)))
    finally:
        file.seek(position)


def _pages(file: IO[bytes]) -> Iterator[Tags]:
    file.seek(0)
    header = file.read(8)
    if _BIG_TIFF in header[2:4]:
        header += file.read(8)
    tags = ImageFileDirectory_v2(header)
    seen: set[int] = set()
    while (place := tags.next) and place not in seen and len(seen) < _MAX_PAGES:
        seen.add(place)
        file.seek(place)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            tags.load(file)
        if said and not any(tags.keys() >= both for both in _PLACES_AND_LENGTHS):
            raise SyntaxError("its list of tags is damaged")  # libtiff would look for its strips for minutes
        yield tags


def _is_reduced(tags: Tags) -> bool:
    return bool(number_of(tags, _SUBFILE_TYPE, 0) & _REDUCED) or number_of(tags, _OLD_SUBFILE_TYPE, 1) == 2


def _is_mask(tags: Tags) -> bool:
    return bool(number_of(tags, _SUBFILE_TYPE, 0) & _MASK)


def number_of(tags: Tags, tag: int, default: int) -> int:
    """The first number of a tag; the default where there is none."""
    value = tags.get(tag, default)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default


def alpha_band(tags: Tags) -> int | None:
    """The place, from 0, of the band that is marked as transparency."""
    bands, marks = number_of(tags, SAMPLES, 1), tags.get(EXTRA_SAMPLES, ())
    marks = marks if isinstance(marks, tuple) else (marks,)
    marked = [place for place, mark in enumerate(marks, start=bands - len(marks)) if mark in _ALPHA]
    return marked[0] if marked and marked[0] > 0 else None


def band_names(tags: Tags) -> tuple[str, ...]:
    """The names of the bands, where GDAL has written one for each."""
    found = {int(place): unescape(name).strip() for place, name in _DESCRIPTION.findall(_text(tags, _GDAL_METADATA))}
    names = tuple(found.get(place, "") for place in range(number_of(tags, SAMPLES, 1)))
    return names if all(names) else ()


def is_rgb_in_jpeg(tags: Tags) -> bool:
    """Whether a page is RGB that JPEG stores as luminance and colour differences: every reader returns RGB."""
    return number_of(tags, PHOTOMETRIC, 1) == _YCBCR and number_of(tags, COMPRESSION, 1) == _JPEG


def nodata_value(tags: Tags) -> float | None:
    """The value that GDAL has noted as no measurement."""
    try:
        return float(_text(tags, _GDAL_NODATA).strip())
    except ValueError:
        return None


def _text(tags: Tags, tag: int) -> str:
    value = tags.get(tag, "")
    value = value[0] if isinstance(value, tuple) and value else value
    return value.rstrip("\0") if isinstance(value, str) else ""
