"""Where on the Earth a TIFF file lies, by its own tags, so that a mask of another place is refused without any extra.

JPEG 2000 is read by rasterio.

GeoTIFF 1.1 (https://docs.ogc.org/is/19-008r4/19-008r4.html): tags 33550, 33922 and 34264 place the pixels, 34735 names
the coordinate reference system.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cyclemlp.data.gdal import JPEG2000, opened_raster
from cyclemlp.data.image_errors import ImageError, named_errors
from cyclemlp.data.images import JPEG2000_SUFFIXES, is_tiff
from cyclemlp.data.tiff_tags import TIFF_HEIGHT, TIFF_WIDTH, Tags, first_page, number_of

_SCALE, _TIE_POINT, _MATRIX, _KEYS = 33550, 33922, 34264, 34735
_MODEL_TYPE, _RASTER_TYPE, _GEOGRAPHIC, _PROJECTED = 1024, 1025, 2048, 3072
_MODEL_IS_GEOGRAPHIC = 2
_PIXEL_IS_POINT = 2
_USER_DEFINED = 32767
_TIFF = frozenset({".tif", ".tiff"})
MAX_SHIFT = 0.1
"""Pixels by which the corners of an image and its mask may differ: tools round coordinates."""


@dataclass(frozen=True, eq=False)
class Georeference:
    """The place of a raster."""

    matrix: npt.NDArray[np.float64]
    """(2, 3): from (column, row, 1) of pixel corners to coordinates."""
    epsg: int | None
    """The number of the coordinate reference system, where the file has one."""
    size: tuple[int, int]
    """(height, width)"""
    degrees: bool = False
    """Whether coordinates are longitude and latitude."""

    def corners(self) -> npt.NDArray[np.float64]:
        """(4, 2): the coordinates of the corners."""
        height, width = self.size
        return np.array([(0, 0, 1), (width, 0, 1), (0, height, 1), (width, height, 1)]) @ self.matrix.T

    @property
    def resolution(self) -> float:
        """The edge of a pixel, in units of the coordinates."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))


def georeference(path: Path) -> Georeference | None:
    """The place of a file; None for one that is neither TIFF nor JPEG 2000, or does not say it. Raises ImageError."""
    if path.suffix.lower() in JPEG2000_SUFFIXES:
        return _of_jpeg2000(path)
    if path.suffix.lower() not in _TIFF or not is_tiff(path):
        return None
    with named_errors(path), path.open("rb") as file:
        tags = first_page(file)
        matrix, keys = _matrix(tags), _keys(tags)
    if matrix is None or not np.isfinite(matrix).all() or np.linalg.det(matrix[:, :2]) == 0:
        return None
    if keys.get(_RASTER_TYPE) == _PIXEL_IS_POINT:  # the tie point is then the centre of a pixel
        matrix[:, 2] -= matrix[:, :2] @ (0.5, 0.5)
    epsg = keys.get(_PROJECTED, keys.get(_GEOGRAPHIC))
    known = None if epsg in (None, 0, _USER_DEFINED) else epsg
    size = (number_of(tags, TIFF_HEIGHT, 0), number_of(tags, TIFF_WIDTH, 0))
    return Georeference(matrix, known, size, keys.get(_MODEL_TYPE) == _MODEL_IS_GEOGRAPHIC)


def _of_jpeg2000(path: Path) -> Georeference | None:
    if find_spec("rasterio") is None:
        return None
    with named_errors(path), opened_raster(path, JPEG2000) as source:
        crs, transform = source.crs, source.transform
        if transform.is_identity:
            return None
        matrix = np.array(transform[:6], np.float64).reshape(2, 3)
        known = None if crs is None else crs.to_epsg()
        return Georeference(matrix, known, (source.height, source.width), crs is not None and crs.is_geographic)


def check_same_place(image: Path, mask: Path) -> None:
    """Raise ImageError where both files say where they lie, and the mask lies elsewhere or has other pixels."""
    theirs, own = georeference(image), georeference(mask)
    if theirs is None or own is None:
        return
    if own.epsg and theirs.epsg and own.epsg != theirs.epsg:
        what = f"is in the coordinates EPSG:{own.epsg}, its image {image.name} in EPSG:{theirs.epsg}"
        raise ImageError(mask, what, "warp the mask to the grid of its image, with the nearest value")
    if abs(own.resolution / theirs.resolution - 1) * max(own.size) > MAX_SHIFT:
        what = f"has pixels of {own.resolution:g}, its image {image.name} of {theirs.resolution:g}"
        raise ImageError(mask, what, "warp the mask to the grid of its image, with the nearest value")
    shift = np.abs(own.corners() - theirs.corners()).max() / theirs.resolution
    if shift > MAX_SHIFT:
        places = [f"{each.matrix[0, 2]:.10g} {each.matrix[1, 2]:.10g}" for each in (own, theirs)]
        what = f"lies {shift:.1f} pixels from its image {image.name}: its corner is at {places[0]}, not {places[1]}"
        raise ImageError(mask, what, "give the mask of this place, or correct the georeference of one of the two")


def _matrix(tags: Tags) -> npt.NDArray[np.float64] | None:
    whole = np.array(tags.get(_MATRIX, ()), np.float64)
    if whole.size == 16:
        return whole.reshape(4, 4)[[0, 0, 0, 1, 1, 1], [0, 1, 3, 0, 1, 3]].reshape(2, 3)
    scale, tie = (np.array(tags.get(tag, ()), np.float64) for tag in (_SCALE, _TIE_POINT))
    if scale.size < 2 or tie.size < 6:
        return None
    column, row, _, x, y, _ = tie[:6]
    return np.array([[scale[0], 0, x - column * scale[0]], [0, -scale[1], y + row * scale[1]]])


def _keys(tags: Tags) -> dict[int, int]:
    """The keys whose values stand in the directory itself."""
    numbers = [int(each) for each in tags.get(_KEYS, ())]
    entries = [numbers[place : place + 4] for place in range(4, len(numbers) - 3, 4)]
    return {key: value for key, location, _, value in entries if location == 0}
