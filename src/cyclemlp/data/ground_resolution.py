"""How many metres of ground a pixel of an image covers, whatever its coordinate reference system.

The edges of a pixel at the centre of the image are measured on the WGS 84 ellipsoid, so that degrees, feet and the
stretched metres of Mercator projections are metres on the ground. rasterio converts the coordinates (extra `geo`).
"""

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyclemlp.data.georeference import georeference
from cyclemlp.data.image_errors import ImageError
from cyclemlp.data.sampling import evenly_spaced

RESOLUTION_TOLERANCE = 0.1
"""By this share the metres per pixel of two images may differ and still be the same resolution."""
_MAX_MEASURED = 1000
"""Training images whose place is read, spread evenly over all."""
_STEP = 10
"""Pixels from which those at the centre are measured: of one alone, rounding would show."""
_WGS84_AXIS, _WGS84_SQUARED_ECCENTRICITY = 6378137.0, 0.00669437999014

_LOG = logging.getLogger(__name__)


def metres_per_pixel(
    crs: Any, transform: Any, size: Sequence[int], at: tuple[float, float] = (0.5, 0.5)
) -> float | None:
    """The edge of a square with the area of a pixel at the centre of a raster of `size` (height, width).

    Or of one `at` these shares of its height and width. `crs` and `transform` are rasterio's. None where there is no
    coordinate reference system on the Earth, and for a pixel beyond its horizon.
    """
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError
    from rasterio.warp import transform as converted

    if crs is None or not (crs.is_geographic or crs.is_projected):
        return None  # others are not on the Earth
    row, column = (edge * share for edge, share in zip(size, at, strict=True))
    half = _STEP / 2
    columns = column + np.array([-half, half, 0, 0])
    rows = row + np.array([0, 0, -half, half])
    x = transform.a * columns + transform.b * rows + transform.c
    y = transform.d * columns + transform.e * rows + transform.f
    try:
        longitudes, latitudes = converted(crs, "EPSG:4326", x, y)
    except (CPLE_BaseError, RasterioError):
        return None
    with np.errstate(invalid="ignore"):  # of what is not on the Earth
        return _edge(np.array(longitudes), np.array(latitudes))


def _edge(longitudes: npt.NDArray[np.float64], latitudes: npt.NDArray[np.float64]) -> float | None:
    """From the degrees of the points left, right, above and below of the centre."""
    latitude = np.radians(latitudes.mean())
    shrunk = 1 - _WGS84_SQUARED_ECCENTRICITY * np.sin(latitude) ** 2
    along = _WGS84_AXIS / np.sqrt(shrunk) * np.cos(latitude)
    across = _WGS84_AXIS * (1 - _WGS84_SQUARED_ECCENTRICITY) / shrunk**1.5
    east = np.radians((longitudes[1::2] - longitudes[::2] + 180) % 360 - 180) * along
    north = np.radians(latitudes[1::2] - latitudes[::2]) * across
    area = abs(east[0] * north[1] - east[1] * north[0]) / _STEP**2
    return float(np.sqrt(area)) if np.isfinite(area) and area > 0 else None


def ground_resolution(path: Path) -> float | None:
    """Metres per pixel of a file; None for one that does not say where it lies, or where rasterio is missing."""
    try:
        if georeference(path) is None:
            return None
        import rasterio
    except (ImageError, ModuleNotFoundError):
        return None  # reading the image says what is wrong with it
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as source:
            return metres_per_pixel(source.crs, source.transform, source.shape)
    except (RasterioError, UnicodeEncodeError):  # the latter of a name that is not UTF-8
        return None


@lru_cache(maxsize=4)
def measure_ground(images: tuple[Path, ...]) -> tuple[float, ...]:
    """(mean, smallest, largest) metres per pixel of up to 1000 of these images; none where they do not say it.

    One line of the log has what was found; images of different resolutions are named in it.
    """
    chosen = evenly_spaced(images, _MAX_MEASURED)
    known = {path: metres for path in chosen if (metres := ground_resolution(path)) is not None}
    if not known:
        note_missing_reader(chosen)
        return ()
    smallest, largest = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    mean = float(np.mean(list(known.values())))
    silent = len(chosen) - len(known)
    rest = f"; {silent} of {len(chosen)} images do not say theirs" if silent else ""
    if known[largest] <= known[smallest] * (1 + RESOLUTION_TOLERANCE):
        _LOG.info("ground resolution: %.4g m per pixel%s", mean, rest)
    else:
        _LOG.warning(
            "note: training images have different ground resolutions, %.4g to %.4g m per pixel, such as %s and %s%s",
            *(known[smallest], known[largest], smallest, largest, rest),
        )
    return mean, known[smallest], known[largest]


def note_missing_reader(images: Sequence[Path]) -> None:
    """Say that georeferenced images would have been measured with rasterio, where it is missing."""
    try:
        import rasterio  # noqa: F401
    except ModuleNotFoundError:
        first = evenly_spaced(images, 1)
        if first and georeference(first[0]) is not None:
            what = "the ground resolution of georeferenced images is not read without rasterio"
            _LOG.warning("note: %s: %s: pip install 'cyclemlp[geo]'", first[0], what)
