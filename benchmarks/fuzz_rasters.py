"""Arrays, TIFF of other bands and values, scenes and areas on a map, for `benchmarks.fuzz_subjects`."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import rasterio
import shapely
import tifffile
from rasterio.warp import transform

from cyclemlp.data.pixel_rule import PixelRule
from cyclemlp.data.rasters import read_raster
from cyclemlp.data.scenes import is_scene, open_scene
from cyclemlp.data.stored_masks import read_stored_mask
from cyclemlp.files import write_json

EDGE, METRES = 48, 2.0
_PLACE: dict[str, Any] = {"crs": "EPSG:32633", "transform": rasterio.Affine(METRES, 0, 500000, 0, -METRES, 5000000)}


def values(dtype: str, *shape: int) -> npt.NDArray[Any]:
    """Random values of a type."""
    drawn = np.random.default_rng(0).integers(0, 250, shape)
    return drawn.astype(dtype)


def write_arrays(folder: Path) -> None:
    """Images in numpy's two formats."""
    for dtype in ("uint8", "int16", "float32"):
        np.save(folder / f"{dtype}.npy", values(dtype, EDGE, EDGE, 4))
    np.savez(folder / "plain.npz", image=values("uint16", EDGE, EDGE))
    np.savez_compressed(folder / "compressed.npz", image=values("uint8", EDGE, EDGE, 3))


def write_rasters(folder: Path) -> None:
    """TIFF files of every arrangement that scanners, microscopes and satellites write."""
    planes = values("uint16", 4, EDGE, EDGE)
    options: dict[str, Any] = {"height": EDGE, "width": EDGE, "driver": "GTiff", **_PLACE}
    arrangements: dict[str, dict[str, Any]] = {
        "tiled": {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate", "predictor": 2},
        "planar": {"interleave": "band", "compress": "lzw"},
        "nodata": {"nodata": 7},
        "overviews": {"driver": "COG"},
    }
    for name, arrangement in arrangements.items():
        with rasterio.open(folder / f"{name}.tif", "w", count=4, dtype="uint16", **(options | arrangement)) as file:
            file.write(planes)
    with rasterio.open(folder / "float.tif", "w", count=1, dtype="float32", **options) as file:
        file.write(values("float32", 1, EDGE, EDGE))
    tifffile.imwrite(folder / "named.ome.tif", planes, metadata={"axes": "CYX", "Channel": {"Name": list("abcd")}})
    tifffile.imwrite(folder / "stack.tif", planes[:3], imagej=True, metadata={"axes": "CYX"})
    tifffile.imwrite(folder / "big.tif", planes[0], bigtiff=True)


def read_values(_: Path, path: Path) -> list[str]:
    """As training on such images reads them, and as a prediction in windows does."""
    raster = read_raster(path)
    raster.valid()
    if is_scene(path):
        bands = tuple(range(1, raster.bands + 1))
        with open_scene(path, PixelRule("per-image", bands, len(bands))) as scene:
            scene.pixels(slice(0, scene.place.height), slice(0, scene.place.width))
            scene.valid(slice(0, scene.place.height))
    return []


def write_mask_tiffs(folder: Path) -> None:
    """Masks on a map, with nodata and with a palette."""
    numbers = values("uint8", 1, EDGE, EDGE) % 3
    options: dict[str, Any] = {"height": EDGE, "width": EDGE, "driver": "GTiff", "count": 1, "dtype": "uint8", **_PLACE}
    with rasterio.open(folder / "nodata.tif", "w", nodata=2, **options) as file:
        file.write(numbers)
    with rasterio.open(folder / "palette.tif", "w", **options) as file:
        file.write_colormap(1, {0: (0, 0, 0), 1: (200, 0, 0), 2: (0, 200, 0)})
        file.write(numbers)
    np.save(folder / "numbers.npy", numbers[0])


def read_mask(_: Path, path: Path) -> list[str]:
    """The numbers of its classes."""
    read_stored_mask(path)
    return []


def write_map(folder: Path) -> None:
    """A data set whose masks are areas on a map, as GeoJSON for training and as GeoPackage for validation."""
    names, rings = ("house", "water"), {}
    for split, left in (("train", 500000.0), ("val", 520000.0)):  # far from each other
        for part in ("images", "masks"):
            (folder / part / split).mkdir(parents=True)
        place = rasterio.Affine(METRES, 0, left, 0, -METRES, 5000000)
        options: dict[str, Any] = {"height": EDGE, "width": EDGE, "count": 1, "dtype": "uint8", "driver": "GTiff"}
        with rasterio.open(folder / f"images/{split}/a.tif", "w", **(options | _PLACE | {"transform": place})) as file:
            file.write(values("uint8", 1, EDGE, EDGE))
        corners = [[(5, 5), (15, 5), (15, 30), (5, 5)], [(25, 5), (40, 5), (40, 30), (25, 5)]]  # (column, row)
        rings[split] = [_degrees([place @ corner for corner in ring]) for ring in corners]
    areas = [
        {"type": "Feature", "properties": {"class": name}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        for name, ring in zip(names, rings["train"], strict=True)
    ]
    write_json(folder / "masks/train/a.geojson", {"type": "FeatureCollection", "features": areas})
    shapes = shapely.to_wkb(np.array([shapely.Polygon(ring) for ring in rings["val"]]))
    described: dict[str, Any] = {"geometry_type": "Polygon", "crs": "EPSG:4326", "layer": "a"}
    pyogrio.raw.write(folder / "masks/val/a.gpkg", shapes, [np.array(names)], ["class"], **described)


def _degrees(points: list[tuple[float, float]]) -> list[list[float]]:
    eastings, northings = zip(*points, strict=True)
    return [list(each) for each in zip(*transform(_PLACE["crs"], "EPSG:4326", eastings, northings), strict=True)]
