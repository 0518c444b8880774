"""Where images lie, in coordinates that they have in common, so that their places can be compared.

The tags of the files are enough where all name the same coordinate reference system; otherwise rasterio converts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyclemlp.data.georeference import Georeference, georeference
from cyclemlp.data.image_errors import ImageError

_METRES_PER_DEGREE = 111_195.0
Matrix = tuple[float, ...]
"""a, b, c, d, e, f: from (column, row) of pixel corners to x = a column + b row + c, y = d column + e row + f."""


@dataclass(frozen=True)
class Footprint:
    """The ground that an image shows."""

    matrix: Matrix
    size: tuple[int, int]
    """(height, width)"""

    def points(self, columns: npt.NDArray[Any], rows: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """X and y of places (column, row) that broadcast; a coordinate of north-up images follows from one of both."""
        a, b, c, d, e, f = self.matrix
        x = a * columns + c if b == 0 else a * columns + b * rows + c
        y = e * rows + f if d == 0 else d * columns + e * rows + f
        return x, y

    def pixels_at(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Column and row of places on the ground, between pixels as well."""
        a, b, c, d, e, f = self.matrix
        columns, rows = np.linalg.solve(np.array([[a, b], [d, e]]), np.stack([np.ravel(x) - c, np.ravel(y) - f]))
        return columns, rows

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Smallest x and y, largest x and y."""
        height, width = self.size
        x, y = self.points(np.array([0, width, 0, width]), np.array([0, 0, height, height]))
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())

    @property
    def pixel(self) -> float:
        """The edge of a pixel."""
        a, b, _, d, e, _ = self.matrix
        return float(abs(a * e - b * d) ** 0.5)


def footprints(images: Iterable[Path]) -> dict[Path, Footprint]:
    """Those of the images that say where they lie, in common coordinates; images of no known place are left out.

    Without rasterio there are none where the images name different coordinate reference systems, or none by number.
    """
    found = {path: place for path in images if (place := _place(path)) is not None}
    systems = {(place.epsg, place.degrees) for place in found.values()}
    if len(systems) == 1 and None not in next(iter(systems)):
        return _in_one_system(found, degrees=next(iter(systems))[1])
    try:
        import rasterio  # noqa: F401
    except ModuleNotFoundError:
        return {}
    return _converted(found)


def _place(path: Path) -> Georeference | None:
    try:
        return georeference(path)
    except ImageError:
        return None  # reading the image says what is wrong with it


def _in_one_system(places: Mapping[Path, Georeference], *, degrees: bool) -> dict[Path, Footprint]:
    matrices = {path: place.matrix for path, place in places.items()}
    if degrees:
        matrices = _in_metres(places, matrices)
    return {path: Footprint(_rows(matrices[path]), place.size) for path, place in places.items()}


def _converted(places: Mapping[Path, Georeference]) -> dict[Path, Footprint]:
    """By way of degrees, where the systems are different ones."""
    import rasterio
    from rasterio.errors import RasterioError

    systems: dict[Path, Any] = {}
    for path in places:
        try:
            with rasterio.open(path) as source:
                systems[path] = source.crs
        except RasterioError:
            continue
    known = {path: place for path, place in places.items() if path in systems}
    if len({None if crs is None else crs.to_wkt() for crs in systems.values()}) == 1:
        crs = next(iter(systems.values()))
        return _in_one_system(known, degrees=crs is not None and crs.is_geographic)
    degrees = {
        path: matrix for path, place in known.items() if (matrix := _in_degrees(place, systems[path])) is not None
    }
    metres = _in_metres(known, degrees)
    return {path: Footprint(_rows(matrix), known[path].size) for path, matrix in metres.items()}


def _in_degrees(place: Georeference, crs: Any) -> npt.NDArray[np.float64] | None:
    """The matrix to longitude and latitude that is exact at three corners; None where there are none."""
    from rasterio.warp import transform

    if crs is None or not (crs.is_geographic or crs.is_projected):
        return None
    corners = place.corners()  # top left, top right, bottom left, bottom right
    x, y = (np.array(each) for each in transform(crs, "EPSG:4326", corners[:, 0], corners[:, 1]))
    height, width = place.size
    matrix = np.array(
        [[(each[1] - each[0]) / width, (each[2] - each[0]) / height, each[0]] for each in (x, y)], np.float64
    )
    return matrix if np.isfinite(matrix).all() else None


def _in_metres(
    places: Mapping[Path, Georeference], degrees: Mapping[Path, npt.NDArray[np.float64]]
) -> dict[Path, npt.NDArray[np.float64]]:
    """Matrices to longitude and latitude, scaled so that both have about the same length: near enough for blocks.

    The scale is that of a whole degree of latitude, so that images which are added nearby change nothing.
    """
    if not degrees:
        return {}
    latitude = np.mean(
        [matrix @ (places[path].size[1] / 2, places[path].size[0] / 2, 1) for path, matrix in degrees.items()], axis=0
    )[1]
    scale = np.array([[np.cos(np.radians(np.round(latitude)))], [1.0]]) * _METRES_PER_DEGREE
    return {path: matrix * scale for path, matrix in degrees.items()}


def _rows(matrix: npt.NDArray[np.float64]) -> Matrix:
    return tuple(map(float, matrix.reshape(-1)))
