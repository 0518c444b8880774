"""Polygons of a raster that comes in strips are those of GDAL on the whole of it, in the memory of a strip."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from cyclemlp.data import features, windows
from cyclemlp.data.polygons import polygons, write_polygons
from cyclemlp.data.scenes import Place, write_geotiff

PLACE = Place(0, 0, CRS.from_epsg(32633), rasterio.Affine(10, 0, 5e5, 0, -10, 5.4e6))


def strips(values: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    return (values[top : top + rows] for top in range(0, len(values), rows))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**32), st.sampled_from([0.2, 0.5, 0.8])
)
def test_they_are_those_of_the_whole_raster(height: int, width: int, rows: int, seed: int, share: float) -> None:
    values = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    values += (np.random.default_rng(seed + 1).random((height, width)) < 0.1).astype(np.uint8)
    import shapely.geometry
    from rasterio.features import shapes

    whole = [
        (shapely.normalize(shapely.geometry.shape(outline)), int(value))
        for outline, value in shapes(values, mask=values != 0, connectivity=4)
    ]
    found = [(shapely.normalize(shape), value) for shape, value in polygons(strips(values, rows), {0})]
    assert len(found) == len(whole)
    by_area = [sorted(each, key=lambda pair: (pair[0].bounds, pair[0].area, pair[1])) for each in (found, whole)]
    for (shape, value), (expected, number) in zip(*by_area, strict=True):
        assert value == number
        assert shape.geom_type == "Polygon"
        assert shape.area == expected.area
        assert shape.equals(expected)


def test_memory_does_not_grow_with_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "STRIP_ROWS", 32)
    monkeypatch.setattr(features, "BATCH", 256)
    peaks = []
    for height in (20, 80, 480):
        values = np.zeros((1, height, 100), np.uint8)
        values[:, ::4, ::4] = 1
        place = Place(height, 100, PLACE.crs, PLACE.transform)
        write_geotiff(tmp_path / f"{height}.tif", place, [values], 1, None)
        tracemalloc.start()
        write_polygons(tmp_path / f"{height}.tif", tmp_path / f"{height}.gpkg", place, ("a", "b"), {0}, 0.0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert pyogrio.read_info(tmp_path / f"{height}.gpkg")["features"] == values.sum()
    assert peaks[2] < 1.3 * peaks[1]


@pytest.mark.parametrize("suffix", ["geojson", "gpkg"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_batches_make_one_file(suffix: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BATCH", 2)
    import shapely

    out = tmp_path / f"a.{suffix}"
    with features.feature_file(out, "a", PLACE, {"class": object, "score": np.float64}) as file:
        for number in range(count):
            file.add(features.on_map(shapely.box(number, 0, number + 1, 2), PLACE), f"bär {number}", number / 4)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    if not count:
        assert pyogrio.read_info(out)["features"] == 0
        return
    info, _, shapes, (names, scores) = pyogrio.raw.read(out)
    assert info["crs"] == {"gpkg": "EPSG:32633", "geojson": "EPSG:4326"}[suffix]
    assert names.tolist() == [f"bär {number}" for number in range(count)]
    assert scores.tolist() == [number / 4 for number in range(count)]
    if suffix == "gpkg":
        assert shapely.from_wkb(shapes[0]).bounds == (5e5, 5.4e6 - 20, 5e5 + 10, 5.4e6)
    if suffix == "geojson":
        assert json.loads(out.read_text(encoding="utf-8"))["type"] == "FeatureCollection"
