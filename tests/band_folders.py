"""Data sets of every task whose images have any number of bands and any type of values."""

import json
from pathlib import Path

import numpy as np
import rasterio
import tifffile
from PIL import Image

EDGE = 64
BOX = slice(10, 40)
_WHITE = {"uint8": 255, "uint16": 4000, "int16": 3000, "float32": 1.0}
NAMES = ("blue", "green", "red", "nir")


def write_bands(path: Path, values: np.ndarray, names: tuple[str, ...] = ()) -> Path:
    """An image (H, W, bands): a GeoTIFF where bands have names, otherwise what the suffix says."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif names:
        height, width, count = values.shape
        size = {"height": height, "width": width, "count": count, "dtype": values.dtype.name}
        place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 1000, 0, -10, 2000)}
        with rasterio.open(path, "w", driver="GTiff", photometric="minisblack", **size, **place) as file:
            file.write(np.moveaxis(values, -1, 0))
            file.descriptions = names
    else:
        planes = np.moveaxis(values, -1, 0)
        planar = "separate" if len(planes) > 1 else None
        tifffile.imwrite(path, planes if planar else planes[0], photometric="minisblack", planarconfig=planar)
    return path


def noise(random: np.random.Generator, bands: int, dtype: str, *, square: bool = True) -> np.ndarray:
    """Noise, and in the last band a square that is brighter than it."""
    values = 0.4 * random.random((EDGE, EDGE, bands))
    if square:
        values[BOX, BOX, -1] += 0.5
    return (values * _WHITE[dtype]).astype(dtype)


def write_data(root: Path, task: str, bands: int, dtype: str, suffix: str, names: tuple[str, ...] = ()) -> Path:
    """Four images for training and two for validation, in an ordinary layout of the task."""
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        if task == "classification":
            for number in range(count):
                for name in ("empty", "square"):
                    (root / split / name).mkdir(parents=True, exist_ok=True)
                    values = noise(random, bands, dtype, square=name == "square")
                    write_bands(root / split / name / f"{name}{number}{suffix}", values, names)
            continue
        folder = root / "images" / split
        folder.mkdir(parents=True)
        for number in range(count):
            write_bands(folder / f"{number}{suffix}", noise(random, bands, dtype), names)
        (_write_masks if task == "segmentation" else _write_objects)(root, split, count, suffix)
    return root


def _write_masks(root: Path, split: str, count: int, _suffix: str) -> None:
    folder = root / "masks" / split
    folder.mkdir(parents=True)
    mask = np.zeros((EDGE, EDGE), np.uint8)
    mask[BOX, BOX] = 1
    for number in range(count):
        Image.fromarray(mask).save(folder / f"{number}.png")


def _write_objects(root: Path, split: str, count: int, suffix: str) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    outline = [[10, 10, 40, 10, 40, 40, 10, 40]]
    images = [
        {"id": number, "file_name": f"{number}{suffix}", "height": EDGE, "width": EDGE} for number in range(count)
    ]
    objects = [
        {"id": number + 1, "image_id": number, "category_id": 1, "bbox": [10, 10, 30, 30], "area": 900, "iscrowd": 0}
        | {"segmentation": outline}
        for number in range(count)
    ]
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "square"}]}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
