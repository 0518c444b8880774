"""Areas with attributes, written as GeoPackage or GeoJSON in batches, so that memory does not grow with their number.

GDAL writes each batch (pyogrio, extra `geo`). It appends to a GeoPackage; of GeoJSON, which it would read whole for
that, each batch is written in memory, and its features are copied. GeoJSON is in longitude and latitude, as RFC 7946
has it, wherever there is a coordinate reference system.
"""

import io
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from cyclemlp.data.scenes import Place
from cyclemlp.errors import DataError, MissingExtraError, reason_of
from cyclemlp.files import atomic_write

DRIVERS = {".geojson": "GeoJSON", ".gpkg": "GPKG"}
BATCH = 4096
"""Features that are written together."""
_NULL = np.array([], dtype=object)


class FeatureFile:
    """A file of polygons that is being written; every feature has the fields of the first batch."""

    def __init__(self, file: Path, layer: str, place: Place, driver: str, types: Mapping[str, Any]) -> None:
        self._file = file
        self._crs = None if place.crs is None else place.crs.to_wkt()
        self._layer = layer
        self._driver = driver
        self._types = types
        self._shapes: list[bytes] = []
        self._rows: list[tuple[Any, ...]] = []
        self._text: IO[str] | None = None
        self._features = 0
        self._begin()

    def add(self, shape: Any, *values: object) -> None:
        """One of shapely's geometries in the coordinates of the place, and its value of each field."""
        import shapely

        self._shapes.append(shapely.to_wkb(shape))
        self._rows.append(values)
        if len(self._shapes) >= BATCH:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        if self._text is not None:
            self._text.write("\n]\n}\n")
            self._text.close()

    def _begin(self) -> None:
        """A file without features."""
        self._file.unlink(missing_ok=True)  # an empty file is no data set that could be written over
        if self._driver != "GeoJSON":
            self._write(self._file, [], [], append=False)
            return
        self._text = self._file.open("w", encoding="utf-8")
        head = {"type": "FeatureCollection", "name": self._layer}
        members = "".join(f"{json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items())
        self._text.write("{\n" + members + '"features": [')

    def _flush(self) -> None:
        if not self._shapes:
            return
        if self._text is None:
            self._write(self._file, self._shapes, self._rows, append=True)
        else:
            batch = io.BytesIO()
            self._write(batch, self._shapes, self._rows, append=False)
            for feature in json.loads(batch.getvalue())["features"]:
                self._text.write(("," if self._features else "") + "\n" + json.dumps(feature, ensure_ascii=False))
                self._features += 1
        self._shapes.clear()
        self._rows.clear()

    def _write(
        self, file: Path | io.BytesIO, shapes: list[bytes], rows: list[tuple[Any, ...]], *, append: bool
    ) -> None:
        import pyogrio
        from pyogrio.errors import DataLayerError, DataSourceError

        columns: list[npt.NDArray[Any]] = [
            np.array([row[place] for row in rows], dtype=kind) for place, kind in enumerate(self._types.values())
        ]
        as_rfc = {"RFC7946": "YES"} if self._driver == "GeoJSON" and self._crs is not None else {}
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="'crs' was not provided")
                pyogrio.raw.write(
                    file,
                    np.array(shapes, dtype=object) if shapes else _NULL,
                    columns,
                    np.array(list(self._types), dtype=object),
                    layer=self._layer,
                    driver=self._driver,
                    geometry_type="Unknown",
                    crs=self._crs,
                    append=append,
                    layer_options=as_rfc,
                )
        except (DataSourceError, DataLayerError) as error:
            what = f"{self._layer} cannot be written as {self._driver} ({reason_of(error)})"
            raise DataError(f"{what}: rename the image, or choose another --vector or --out") from error


@contextmanager
def feature_file(out: Path, layer: str, place: Place, types: Mapping[str, Any]) -> Iterator[FeatureFile]:
    """A file of polygons with fields of these types (of numpy), whole at the end or not there.

    Raises MissingExtraError, and DataError where GDAL cannot write it.
    """
    try:
        import pyogrio  # noqa: F401
        import shapely  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "geo") from error
    with atomic_write(out) as file:
        features = FeatureFile(file, layer, place, DRIVERS[out.suffix], types)
        yield features
        features.close()


def on_map(shape: Any, place: Place) -> Any:
    """A geometry in (column, row) of a raster, in the coordinates of its place."""
    import shapely

    matrix = place.transform

    def moved(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        columns, rows = points.T
        x = matrix.a * columns + matrix.b * rows + matrix.c
        return np.column_stack([x, matrix.d * columns + matrix.e * rows + matrix.f])

    return shapely.transform(shape, moved)
