"""Scenes as people have them: in JPEG, turned, in feet, on other planets, with names of any kind."""

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio import Affine
from torch import Tensor, nn

from cyclemlp.data.gdal import quiet
from cyclemlp.data.scenes import Place, write_geotiff
from cyclemlp.errors import ConfigError
from cyclemlp.files import JsonObject, atomic_write
from cyclemlp.inference.predict_files import predict_files
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.options import PredictionOptions

pytestmark = pytest.mark.usefixtures("one_thread")

CARD = ModelCard(
    "segmentation", "cyclemlp_nano", "semantic-fpn", ("background", "green", "blue"), window=64, overlap=16
)
UTM, ORIGIN = "EPSG:32633", (500_000.0, 5_400_000.0)
NORTH_UP = Affine(10, 0, ORIGIN[0], 0, -10, ORIGIN[1])


class BrightestChannel(nn.Module):
    """Says the band that is brightest."""

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (CARD.mean, CARD.std))
        return images * std + mean


@pytest.fixture
def predictor() -> Predictor:
    return Predictor.of_model(BrightestChannel(), CARD, device="cpu")


def stripes(height: int = 90, width: int = 100) -> np.ndarray:
    """Red, green and blue, each over a third of the height; (height, width, 3)."""
    numbers = np.repeat(np.arange(3), height // 3)[:, None].repeat(width, axis=1)
    return (np.eye(3, dtype=np.uint8) * 255)[numbers]


def scene(path: Path, values: np.ndarray | None = None, **profile: Any) -> Path:
    values = stripes() if values is None else values
    size = {"height": values.shape[0], "width": values.shape[1], "count": values.shape[2], "dtype": "uint8"}
    with quiet(), rasterio.open(path, "w", **{"driver": "GTiff", "transform": NORTH_UP, **size, **profile}) as target:
        target.write(np.moveaxis(values, -1, 0))
    return path


def predicted(predictor: Predictor, path: Path, out: Path, **options: Any) -> JsonObject:
    (entry,) = predict_files(predictor, [path], out, PredictionOptions(**options)).images
    return entry


def test_rgb_in_jpeg_is_a_scene_and_its_mask_counts(predictor: Predictor, tmp_path: Path) -> None:
    """As GDAL stores aerial images: luminance and colour differences, and a mask in the file."""
    form: dict[str, Any] = {"compress": "jpeg", "jpeg_quality": 95, "photometric": "ycbcr"}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = scene(tmp_path / "scene.tif", crs=UTM, tiled=True, blockxsize=64, blockysize=64, **form)
        with rasterio.open(path, "r+") as file:
            file.write_mask(np.arange(90)[:, None].repeat(100, axis=1) >= 40)
    entry = predicted(predictor, path, tmp_path / "out", vector="gpkg")
    with rasterio.open(path) as given, rasterio.open(entry["mask"]) as mask:
        assert (mask.crs, mask.transform, mask.shape) == (given.crs, given.transform, given.shape)
        found = mask.read(1)
    assert (found[:40] == 255).all()
    assert (found[40:] == stripes()[40:].argmax(2)).mean() > 0.97


@pytest.mark.parametrize(
    ("crs", "transform", "wanted"),
    [
        (UTM, NORTH_UP, 100),
        (UTM, Affine(10, 0, ORIGIN[0], 0, 10, ORIGIN[1]), 100),  # the first row is the southernmost
        (UTM, Affine(6, 8, ORIGIN[0], -8, 6, ORIGIN[1]), 100),
        ("EPSG:32633+5773", NORTH_UP, 100),  # with heights
        ("EPSG:2227", Affine(30, 0, 6_000_000, 0, -30, 2_000_000), (30 * 1200 / 3937) ** 2),  # feet
        ("EPSG:3857", NORTH_UP, None),
        ("EPSG:4087", NORTH_UP, None),  # plate carree, which stretches the parallels
        (UTM, Affine(10, 0, 2_000_000, 0, -10, ORIGIN[1]), None),  # far from its zone
        ("+proj=geos +h=35785831 +lon_0=0 +sweep=y", Affine(100_000, 0, -5e6, 0, -100_000, 4.5e6), None),
    ],
)
def test_square_metres_are_those_of_the_ground(
    crs: str, transform: Affine, wanted: float | None, predictor: Predictor, tmp_path: Path
) -> None:
    entry = predicted(predictor, scene(tmp_path / "scene.tif", crs=crs, transform=transform), tmp_path / "out")
    if wanted is None:
        assert "areas_m2" not in entry
    else:
        assert entry["areas_m2"]["blue"] == pytest.approx(30 * 100 * wanted)


@pytest.mark.parametrize("crs", ['LOCAL_CS["Local (m)",UNIT["metre",1]]', "+proj=longlat +R=1737400 +no_defs"])
def test_geojson_is_refused_where_there_are_no_degrees_on_the_earth(
    crs: str, predictor: Predictor, tmp_path: Path
) -> None:
    path = scene(tmp_path / "scene.tif", crs=crs, transform=Affine(0.01, 0, 5, 0, -0.01, 5))
    (failed,) = predict_files(predictor, [path], tmp_path / "out", PredictionOptions(vector="geojson")).failed
    assert "not on the Earth, and GeoJSON is in longitude and latitude; give --vector gpkg" in failed["error"]
    assert not list((tmp_path / "out").glob("*"))
    assert Path(predicted(predictor, path, tmp_path / "other", vector="gpkg")["polygons"]).is_file()


def test_polygons_of_a_scene_without_coordinate_system(predictor: Predictor, tmp_path: Path) -> None:
    entry = predicted(predictor, scene(tmp_path / "scene.tif"), tmp_path / "out", vector="geojson")
    features = json.loads(Path(entry["polygons"]).read_text(encoding="utf-8"))["features"]
    assert {feature["properties"]["area"] for feature in features} == {30 * 100 * 100.0}


def test_names_that_gdal_would_take_apart(predictor: Predictor, tmp_path: Path) -> None:
    path = scene(tmp_path / "a;b!c.tif", crs=UTM)
    with pytest.raises(ConfigError, match=r"--vector gpkg cannot be written to a path with ! or ; \(.*choose another"):
        predicted(predictor, path, tmp_path / "out", vector="gpkg")
    entry = predicted(predictor, path, tmp_path / "out!", vector="geojson")
    assert sorted(path.name for path in (tmp_path / "out!").iterdir()) == ["a;b!c_mask.tif", "a;b!c_polygons.geojson"]
    assert '"green"' in Path(entry["polygons"]).read_text(encoding="utf-8")


def test_a_folder_whose_name_is_not_utf8_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(ConfigError, match="GDAL writes to no path that is not UTF-8: choose another"):
        predicted(predictor, scene(tmp_path / "scene.tif", crs=UTM), out)


def test_a_layer_that_gdal_refuses_is_one_line(predictor: Predictor, tmp_path: Path) -> None:
    path = scene(tmp_path / "gpkg_1.tif", crs=UTM)
    (failed,) = predict_files(predictor, [path], tmp_path / "out", PredictionOptions(vector="gpkg")).failed
    assert "gpkg_1_mask cannot be written as GPKG" in failed["error"]
    assert not (tmp_path / "out" / "gpkg_1_polygons.gpkg").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="files have no limits there")
def test_a_raster_that_the_disk_does_not_hold_is_an_error(tmp_path: Path) -> None:
    """GDAL closes it without a word."""
    import resource

    noise = np.random.default_rng(0).integers(0, 255, (1, 400, 500), dtype=np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with (
            pytest.raises(OSError, match="the disk does not hold what was written to it"),
            atomic_write(tmp_path / "a.tif") as file,
        ):
            write_geotiff(file, Place(400, 500, None, NORTH_UP), [noise[:, :300], noise[:, 300:]], 1, 255)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_what_gdal_says_of_a_write_is_an_error_of_the_disk(tmp_path: Path) -> None:
    """Without a number the command line would take it for a fault of its own."""
    with pytest.raises(OSError, match="the disk does not hold what was written to it") as caught:
        write_geotiff(tmp_path / "gone" / "a.tif", Place(4, 4, None, NORTH_UP), [np.zeros((1, 4, 4), np.uint8)], 1, 255)
    assert caught.value.errno == errno.ENOSPC


def palette(folder: Path) -> Path:
    path = folder / "palette.tif"
    size = {"height": 90, "width": 100, "count": 1, "dtype": "uint8", "crs": UTM, "transform": NORTH_UP}
    with rasterio.open(path, "w", driver="GTiff", photometric="palette", **size) as target:
        target.write_colormap(1, {0: (255, 0, 0), 1: (0, 255, 0), 2: (0, 0, 255)})
        target.write(stripes().argmax(2).astype(np.uint8), 1)
    return path


def no_utf8(folder: Path) -> Path:
    return scene(folder / "scene.tif", crs=UTM).rename(folder / os.fsdecode(b"caf\xe9.tif"))


@pytest.mark.parametrize("write", [palette, no_utf8])
def test_it_is_said_where_results_have_no_place(
    write: Callable[[Path], Path], predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = predicted(predictor, write(tmp_path), tmp_path / "out")
    assert entry["mask"].endswith("_mask.png")
    assert "results of 1 georeferenced file have no place on the map" in caplog.text
    caplog.clear()
    predicted(predictor, scene(tmp_path / "plain.tif", crs=UTM), tmp_path / "out")
    assert not caplog.text
