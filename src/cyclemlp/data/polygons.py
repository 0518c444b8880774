"""From the classes of a raster to polygons: GDAL follows their outlines row by row, so nothing is cut at windows."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyclemlp.data.gdal import quiet
from cyclemlp.data.scenes import Place
from cyclemlp.errors import MissingExtraError
from cyclemlp.files import atomic_write

DRIVERS = {".geojson": "GeoJSON", ".gpkg": "GPKG"}


def write_polygons(
    raster: Path, out: Path, place: Place, classes: tuple[str, ...], left_out: Collection[int], simplify: float
) -> None:
    """The connected pixels of each class in `raster` as polygons with `class`, `class_id` and `area`, holes kept.

    Pixels that touch at a corner are not connected. Areas are those of the pixels, in the squared unit of the
    coordinates; `area_m2` is there where `place` knows it. `simplify` is the most, in pixels, by which an outline may
    move. GeoJSON is in longitude and latitude (RFC 7946) where the raster has a coordinate system, GeoPackage in that
    of the raster. Raises MissingExtraError.
    """
    try:
        import pyogrio
        import rasterio
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "geo") from error
    pixel, crs = abs(place.transform.determinant), place.crs
    with quiet(), rasterio.open(raster) as source:
        shapes, values, areas = _outlines(source, left_out, simplify * pixel**0.5)
    fields: dict[str, npt.NDArray[Any]] = {
        "class": np.array([classes[value] for value in values], dtype=object),
        "class_id": np.array(values, dtype=np.int32),
        "area": np.array(areas, dtype=np.float64),
    }
    if place.pixel_area is not None:
        fields["area_m2"] = fields["area"] * (place.pixel_area / pixel)
    driver = DRIVERS[out.suffix]
    as_rfc = {"RFC7946": "YES"} if driver == "GeoJSON" and crs is not None else {}
    with atomic_write(out) as file:
        file.unlink()  # an empty file is no data set that could be written over
        pyogrio.raw.write(
            file,
            np.array(shapes, dtype=object),
            list(fields.values()),
            np.array(list(fields), dtype=object),
            layer=raster.stem,
            driver=driver,
            geometry_type="Polygon",
            crs=None if crs is None else crs.to_wkt(),
            layer_options=as_rfc,
        )


def _outlines(source: Any, left_out: Collection[int], tolerance: float) -> tuple[list[bytes], list[int], list[float]]:
    """Well-known binary, class id and area of each polygon."""
    import shapely

    shapes, values, areas = [], [], []
    for shape, value in _polygons(source, left_out):
        areas.append(float(shape.area))
        shapes.append(shapely.to_wkb(shape.simplify(tolerance) if tolerance else shape))
        values.append(value)
    return shapes, values, areas


def _polygons(source: Any, left_out: Collection[int]) -> Iterator[tuple[Any, int]]:
    import rasterio
    import shapely.geometry
    from rasterio.features import shapes

    for outline, value in shapes(rasterio.band(source, 1), connectivity=4, transform=source.transform):
        if int(value) not in left_out:
            yield shapely.geometry.shape(outline), int(value)
