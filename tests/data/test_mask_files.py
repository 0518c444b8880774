"""Class numbers in BMP, TIFF and array files are those stored, or the file is refused by name."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image

from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.palettes import parse_palette
from cyclemlp.data.stored_masks import read_stored_mask
from cyclemlp.errors import DataError

WriteDataset = Callable[..., Path]
VALUES = (np.arange(35) % 7).reshape(5, 7).astype(np.uint8)
Write = Callable[[Path, np.ndarray[Any, Any]], object]


def with_rasterio(path: Path, values: np.ndarray[Any, Any], **options: Any) -> None:
    bands = values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0)
    table = options.pop("table", None)
    options = {"transform": rasterio.Affine(2, 0, 0, 0, -2, 0), **options}
    shape = {"height": bands.shape[1], "width": bands.shape[2], "count": len(bands)}
    with rasterio.open(path, "w", driver="GTiff", dtype=values.dtype.name, **shape, **options) as file:
        if table:
            file.write_colormap(1, table)
        file.write(bands)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32"])
@pytest.mark.parametrize("compress", ["lzw", "deflate", "none"])
def test_numbers_of_a_tiff_in_every_type(tmp_path: Path, dtype: str, compress: str) -> None:
    with_rasterio(tmp_path / "a.tif", VALUES.astype(dtype), compress=compress)
    stored = read_stored_mask(tmp_path / "a.tif")
    np.testing.assert_array_equal(stored.numbers, VALUES)
    assert stored.numbers.dtype == np.uint8
    assert stored.nodata is None


@pytest.mark.parametrize("name", ["a.bmp", "a.npy", "a.npz"])
def test_numbers_of_other_files(tmp_path: Path, name: str) -> None:
    if name == "a.bmp":
        Image.fromarray(VALUES).save(tmp_path / name)
    else:
        (np.save if name == "a.npy" else np.savez)(tmp_path / name, VALUES.astype(np.int64))
    np.testing.assert_array_equal(read_stored_mask(tmp_path / name).numbers, VALUES)


@pytest.mark.parametrize("write", [tifffile.imwrite, None])
def test_one_bit_is_0_and_1(tmp_path: Path, write: Callable[..., object] | None) -> None:
    values = np.eye(5, 9, dtype=bool)
    if write is None:
        with_rasterio(tmp_path / "a.tif", values.astype(np.uint8), nbits=1)
    else:
        write(tmp_path / "a.tif", values, photometric="minisblack")
    np.testing.assert_array_equal(read_stored_mask(tmp_path / "a.tif").numbers, values)


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 6), ("int16", -9999), ("float32", float("nan"))])
def test_nodata_is_ignored(tmp_path: Path, dtype: str, nodata: float) -> None:
    values = VALUES.astype(dtype)
    values[VALUES == 6] = nodata
    with_rasterio(tmp_path / "a.tif", values, nodata=nodata)
    stored = read_stored_mask(tmp_path / "a.tif")
    np.testing.assert_array_equal(stored.numbers, np.where(VALUES == 6, 255, VALUES))
    assert stored.nodata is not None
    assert stored.nodata.sum() == 5


def test_a_colour_table_leaves_the_numbers(tmp_path: Path) -> None:
    with_rasterio(tmp_path / "a.tif", VALUES, table={number: (number, 0, 9, 255) for number in range(7)})
    stored = read_stored_mask(tmp_path / "a.tif")
    np.testing.assert_array_equal(stored.numbers, VALUES)
    assert stored.colours[3] == (3, 0, 9)
    palette = parse_palette(Path("p"), [f"c{number} {6 - number} 0 9" for number in range(7)])
    np.testing.assert_array_equal(read_stored_mask(tmp_path / "a.tif", palette).numbers, 6 - VALUES)


def test_colours_in_a_tiff(tmp_path: Path) -> None:
    rgb = np.stack([VALUES, VALUES * 2, np.full_like(VALUES, 9)], axis=2)
    with_rasterio(tmp_path / "a.tif", rgb, photometric="rgb")
    palette = parse_palette(Path("p"), [f"c{number} {number} {2 * number} 9" for number in range(7)])
    np.testing.assert_array_equal(read_stored_mask(tmp_path / "a.tif", palette).numbers, VALUES)
    with pytest.raises(DataError, match="is an RGB image and no list says which colour is which class; it has 0 0 9"):
        read_stored_mask(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda path, values: with_rasterio(path, values, compress="jpeg"),
            "is compressed as JPEG, which changes class",
        ),
        (lambda path, values: Image.fromarray(values).save(path, "PNG"), "is no TIFF file, whatever its suffix"),
        (lambda path, values: tifffile.imwrite(path, values, photometric="miniswhite"), "says that 0 is white"),
        (lambda path, values: tifffile.imwrite(path, np.stack([values, values])), "has 2 pages, and a mask has one"),
        (lambda path, values: with_rasterio(path, values * np.uint16(300)), "holds the value 1800, but masks hold"),
        (lambda path, values: with_rasterio(path, values.astype(np.int16) - 1), "holds the value -1, but masks hold"),
        (lambda path, values: with_rasterio(path, values * np.float32(0.5)), "holds values that are no whole numbers"),
        (
            lambda path, values: with_rasterio(path, np.stack([values, values[:, ::-1]], axis=2)),
            "has 2 bands of type uint8",
        ),
    ],
)
def test_tiff_files_that_are_no_masks(tmp_path: Path, write: Write, message: str) -> None:
    write(tmp_path / "a.tif", VALUES)
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}/a.tif {message}")):
        read_stored_mask(tmp_path / "a.tif")


def test_tiff_masks_need_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = np.stack([VALUES, VALUES * 2, np.full_like(VALUES, 9)], axis=2)
    tifffile.imwrite(tmp_path / "bits.tif", VALUES > 3, photometric="minisblack")
    for name, values in (
        ("a", VALUES),
        ("b", VALUES.astype(np.uint16)),
        ("c", VALUES.astype(np.float32)),
        ("rgb", rgb),
    ):
        tifffile.imwrite(tmp_path / f"{name}.tif", values)
    for name in ("rasterio", "tifffile"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in "abc":
        np.testing.assert_array_equal(read_stored_mask(tmp_path / f"{name}.tif").numbers, VALUES)
    np.testing.assert_array_equal(read_stored_mask(tmp_path / "bits.tif").numbers, VALUES > 3)
    palette = parse_palette(Path("p"), [f"c{number} {number} {2 * number} 9" for number in range(7)])
    np.testing.assert_array_equal(read_stored_mask(tmp_path / "rgb.tif", palette).numbers, VALUES)


def test_a_damaged_number_of_bands_is_refused_before_decoding(tmp_path: Path) -> None:
    with_rasterio(tmp_path / "a.tif", VALUES)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    entry = content.index((277).to_bytes(2, "little") + b"\3\0\1\0\0\0")
    content[entry + 8 : entry + 10] = (55553).to_bytes(2, "little")
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tif has 55553 bands, and 32 are the most"):
        read_stored_mask(tmp_path / "a.tif")


def test_a_damaged_header_of_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VALUES)
    content = (tmp_path / "a.npy").read_bytes().replace(b"}", b" ", 1)
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npy is damaged or incomplete"):
        read_stored_mask(tmp_path / "a.npy")


def as_tiff(root: Path, **options: Any) -> Path:
    for path in sorted(root.glob("masks/*/*.png")):
        with_rasterio(path.with_suffix(".tif"), np.asarray(Image.open(path)), **options)
        path.unlink()
    return root


@pytest.mark.parametrize("suffix", ["", "_label"])
def test_a_data_set_with_masks_in_tiff_files(write_dataset: WriteDataset, suffix: str) -> None:
    root = write_dataset()
    before = find_dataset(root, MaskDataset).splits["train"].target(1)
    as_tiff(root)
    for path in root.glob("masks/*/*.tif"):
        path.rename(path.with_stem(path.stem + suffix))
    dataset = find_dataset(root, MaskDataset)
    assert dataset.splits["train"].masks[1] == root / f"masks/train/b{suffix}.tif"
    np.testing.assert_array_equal(dataset.splits["train"].target(1), before)
    assert (inspect_dataset(root).problems, inspect_dataset(root).notes) == ((), ())


def test_masks_whose_0_is_nodata_are_told_so(write_dataset: WriteDataset) -> None:
    root = as_tiff(write_dataset(classes=None), nodata=0)
    report = inspect_dataset(root)
    assert "a.tif marks pixels as nodata, as do 1 further masks, which are ignored: 68.8% of all" in str(
        report.notes[0]
    )
    assert any("hold the class 1 alone" in str(problem) for problem in report.problems)


def test_black_and_white_with_nodata(write_dataset: WriteDataset) -> None:
    root = write_dataset(classes=None)
    for path in root.glob("masks/*/*.png"):
        values = np.zeros((32, 48), np.uint8)
        values[:4], values[4:6] = 255, 9
        with_rasterio(path.with_suffix(".tif"), values, nodata=9)
        path.unlink()
    dataset = find_dataset(root, MaskDataset)
    assert dataset.classes == ("background", "object")
    assert np.bincount(dataset.splits["val"].target(0).ravel()).nonzero()[0].tolist() == [0, 1, 255]


def test_a_mask_and_another_of_the_same_image(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    with_rasterio(root / "masks/train/a.tif", np.zeros((32, 48), np.uint8))
    with pytest.raises(DataError, match=r"a\.tif belongs to the same image as a\.png; remove one of the two"):
        find_dataset(root, MaskDataset)


def test_a_tiff_mask_that_is_one_pixel_larger(write_dataset: WriteDataset) -> None:
    root = as_tiff(write_dataset())
    with_rasterio(root / "masks/val/c.tif", np.zeros((33, 48), np.uint8))
    with pytest.raises(DataError, match=r"c\.tif is 48x33 \(width x height\), its image 48x32; make the mask the size"):
        find_dataset(root, MaskDataset)


def scene(path: Path, left: float = 500000.0, metres: float = 2.0, epsg: int | None = 32633, **options: Any) -> None:
    """An image or a mask with a place on the Earth."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((20, 30), np.uint8)
    values[:5] = 1
    transform = rasterio.Affine(metres, 0, left, 0, -metres, 4000000)
    with_rasterio(path, values, transform=transform, crs=f"EPSG:{epsg}" if epsg else None, **options)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            scene(tmp_path / kind / split / "a.tif")
    return tmp_path


def test_a_mask_of_the_place_of_its_image(scenes: Path) -> None:
    assert inspect_dataset(scenes).problems == ()
    scene(scenes / "masks/val/a.tif", left=500000.01)  # rounded by a tool
    scene(scenes / "masks/train/a.tif")
    with rasterio.open(scenes / "masks/train/a.tif", "r+") as file:
        file.update_tags(AREA_OR_POINT="Point")
    assert inspect_dataset(scenes).problems == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsg": 32634}, "is in the coordinates EPSG:32634, its image a.tif in EPSG:32633; warp the mask"),
        ({"metres": 1.0}, "has pixels of 1, its image a.tif of 2; warp the mask to the grid of its image"),
        ({"left": 500002.0}, "lies 1.0 pixels from its image a.tif: its corner is at 500002 4000000, not 500000 4000"),
        ({"left": 501000.0}, "lies 500.0 pixels from its image a.tif"),
    ],
)
def test_a_mask_of_another_place_is_refused(scenes: Path, options: dict[str, Any], message: str) -> None:
    scene(scenes / "masks/val/a.tif", **options)
    with pytest.raises(DataError, match=re.escape(f"{scenes}/masks/val/a.tif {message}")):
        find_dataset(scenes, MaskDataset)


def test_a_mask_without_a_place_is_compared_by_its_size(scenes: Path) -> None:
    (scenes / "masks/val/a.tif").unlink()
    Image.fromarray(np.eye(20, 30, dtype=np.uint8)).save(scenes / "masks/val/a.png")
    assert inspect_dataset(scenes).problems == ()
