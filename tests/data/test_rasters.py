"""Bands, bit depths and ranges: files are read as the arrays they were made from, and become pixels by one rule."""

import io
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image

from cyclemlp.data.image_errors import ImageError
from cyclemlp.data.images import exif_orientation, image_size
from cyclemlp.data.masks import MaskSplit
from cyclemlp.data.measured_images import decode_measured, read_measured
from cyclemlp.data.pixel_measurement import measure_pixels, parse_value_range
from cyclemlp.data.pixel_rule import PHOTO, PixelRule
from cyclemlp.data.rasters import is_photo, read_raster
from cyclemlp.errors import ConfigError, DataError, MissingExtraError

SIZE = (12, 16)


def noise(bands: int, dtype: str = "uint16") -> np.ndarray:
    random = np.random.default_rng(bands)
    if dtype == "float32":
        return random.normal(size=(*SIZE, bands)).astype(np.float32)
    info = np.iinfo(dtype)
    return random.integers(info.min, info.max, (*SIZE, bands), dtype, endpoint=True)


def write_geotiff(path: Path, values: np.ndarray, **profile: object) -> Path:
    options = {"driver": "GTiff", "count": values.shape[2], "dtype": values.dtype.name, "photometric": "minisblack"}
    transform = rasterio.Affine(10, 0, 1000, 0, -10, 2000)
    size = {"height": values.shape[0], "width": values.shape[1]}
    with rasterio.open(path, "w", **options, **size, crs="EPSG:32633", transform=transform, **profile) as file:
        file.write(np.moveaxis(values, -1, 0))
        for number in range(1, values.shape[2] + 1):
            file.set_band_description(number, f"B{number:02}")
    return path


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("bands", [1, 3, 4, 12, 32])
def test_tiff_files_of_every_kind_are_read_bit_by_bit(
    tmp_path: Path, dtype: str, bands: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = noise(bands, dtype)
    path = write_geotiff(tmp_path / "geo.tif", values, compress="deflate", interleave="band")
    raster = read_raster(path)
    np.testing.assert_array_equal(raster.values, values)
    assert raster.values.dtype == values.dtype
    assert raster.names == tuple(f"B{number:02}" for number in range(1, bands + 1))
    assert image_size(path) == SIZE
    without(monkeypatch, "rasterio")
    np.testing.assert_array_equal(read_raster(path).values, values)
    planes = tmp_path / "planes.tif"
    tifffile.imwrite(planes, np.moveaxis(values, -1, 0), photometric="minisblack", metadata={"axes": "CYX"})
    np.testing.assert_array_equal(read_raster(planes).values, values)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_are_images(tmp_path: Path, dtype: str, suffix: str) -> None:
    path, values = tmp_path / f"a{suffix}", noise(5, dtype)
    np.save(path, values) if suffix == ".npy" else np.savez_compressed(path, values)
    np.testing.assert_array_equal(read_raster(path).values, values)
    assert image_size(path) == SIZE
    assert exif_orientation(path) == 1
    assert not is_photo(path)


def _npz(path: Path, shape: tuple[int, ...], kept: int = 4096) -> Path:
    header = io.BytesIO()
    np.lib.format.write_array_header_2_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", header.getvalue() + bytes(kept))
    return path


def _flipped(path: Path) -> Path:
    np.savez(path, noise(3, "uint8"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_flipped, r"is damaged or incomplete \(Bad CRC-32"),
        (lambda path: _npz(path, (8, 8, 64)), "has 64 bands, and 32 are the most"),
        (lambda path: _npz(path, (2**13, 2**13, 32)), "lacks a part of its values"),
        (lambda path: _npz(path, (2**20, 2**20)), "unpacks to more than"),
        (lambda path: _npz(path, (8,)), r"holds an array of shape \(8,\)"),
    ],
)
def test_a_bad_archive_is_one_line_and_takes_no_memory(
    tmp_path: Path, write: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        read_raster(write(tmp_path / "a.npz"))
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_reader_is_named_and_files_that_pillow_reads_need_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = noise(1)
    grey = write_geotiff(tmp_path / "grey.tif", values)
    four = write_geotiff(tmp_path / "four.tif", noise(4))
    without(monkeypatch, "rasterio", "tifffile")
    np.testing.assert_array_equal(read_raster(grey).values, values)
    with pytest.raises(
        MissingExtraError, match=r"tifffile or rasterio, which is not installed: pip install 'cyclemlp\["
    ):
        read_raster(four)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (noise(33), "has 33 bands, and 32 are the most"),
        (noise(2).astype(np.float64), "has values of type float64; convert them to uint8, uint16, int16, float32"),
        (np.zeros((2, 2, 2, 2), np.uint8), r"holds an array of shape \(2, 2, 2, 2\)"),
        (np.array([None]), "is damaged or incomplete"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, values: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ImageError, match=rf"a\.npy {message}"):
        read_raster(tmp_path / "a.npy")


def test_several_planes_are_refused_by_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 2, 12, 16), np.uint16), imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(
        ImageError, match=r"has 10 pages or planes \(axes ZCYX, 5 x 2 x 12 x 16\), and an image has one"
    ):
        read_raster(tmp_path / "a.tif")


def test_twelve_bits_are_the_eight_bit_image(tmp_path: Path) -> None:
    eight = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(eight).save(tmp_path / "a.png")
    twelve = np.rint(eight * (4095 / 255)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", twelve, photometric="rgb")
    measured = measure_pixels((tmp_path / "a.tif",), None, None)
    assert measured.rule == PixelRule("fixed", ranges=((0, 4095),))
    assert measured.mean == ()  # as the photograph is normalised
    np.testing.assert_array_equal(read_measured(tmp_path / "a.tif", measured.rule).pixels, eight)
    assert measure_pixels((tmp_path / "a.png",), None, None).rule == PixelRule()


def test_bands_are_chosen_measured_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = (noise(4, "uint16") >> 4).astype(np.uint16)
    path = write_geotiff(tmp_path / "a.tif", values)
    with caplog.at_level("INFO"):
        measured = measure_pixels((path,), (4, 3, 2), None)
    rule = measured.rule
    assert (rule.bands, rule.file_bands, rule.names, rule.ranges) == ((4, 3, 2), 4, ("B04", "B03", "B02"), ((0, 4095),))
    told = "images of 4 bands of type uint16, of which 4 3 2 are used, .*; value range 0 to 4095"
    assert re.search(told, caplog.text)
    pixels = read_measured(path, rule).pixels
    np.testing.assert_allclose(pixels, values[..., [3, 2, 1]] / 4095 * 255, atol=0.5001)
    np.testing.assert_allclose(measured.mean, pixels.mean(axis=(0, 1)) / 255, atol=1e-5)
    np.testing.assert_allclose(measured.std, pixels.std(axis=(0, 1)) / 255, atol=1e-5)
    with pytest.raises(DataError, match="has 4 bands, but --bands names 5: give numbers from 1 to 4"):
        measure_pixels((path,), (5,), None)


def test_other_bands_and_other_ranges_are_named_at_prediction(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rule = PixelRule("fixed", (4, 1), 4, ("nir", "red"), ((0.0, 65535.0),))
    with pytest.raises(
        DataError, match="the image has 3 bands, but the model was trained on images of 4, of which it u"
    ):
        decode_measured(noise(3), rule, 2)
    path = tmp_path / "a.npy"
    np.save(path, noise(4) >> 5)
    decode_measured(path, rule, 2)
    assert "a.npy uses only 3.1% of the range of values" in caplog.text
    caplog.clear()
    decode_measured(path, PixelRule("fixed", (4, 1), 4, (), ((0.0, 255.0),)), 2)
    assert "outside of it and cut off" in caplog.text
    caplog.clear()
    decode_measured(noise(4), rule, 2)
    assert not caplog.text
    decode_measured(noise(4, "uint8"), PixelRule("fixed", (4, 1), 4, (), ((0.0, 1023.0),)), 2)
    assert "the image has values of 8 bits, of which 255 is white: the range of the model is 0 to 1023" in caplog.text


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_a_pillow_image_has_the_values_of_its_file(tmp_path: Path, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(noise(3, "uint8")).convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE) // 100))
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path, exif=exif)
    rule = PixelRule("fixed", ranges=((0.0, 200.0),))
    expected = decode_measured(path, rule, 3)
    with Image.open(path) as opened:
        found = decode_measured(opened, rule, 3)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert (found.valid is None) == (expected.valid is None) == (not mode.endswith("A"))
    if found.valid is not None:
        np.testing.assert_array_equal(found.valid, expected.valid)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_masked_array_hides_its_pixels(dtype: str) -> None:
    hidden = np.zeros((*SIZE, 3), np.bool_)
    hidden[:4] = True
    hidden[4, :, 0] = True  # of one band alone
    image = np.ma.masked_array(noise(3, dtype), hidden)
    for rule in (PHOTO, PixelRule("fixed", ranges=((0.0, 65535.0),))):
        found = decode_measured(image, rule, 3)
        np.testing.assert_array_equal(found.pixels, decode_measured(noise(3, dtype), rule, 3).pixels)
        np.testing.assert_array_equal(found.valid, ~hidden.all(axis=2))


def test_ranges_of_other_types(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, noise(2, "float32"))
    rule = measure_pixels((path,), None, None).rule
    expected = np.percentile(noise(2, "float32").reshape(-1, 2), (0.1, 99.9), axis=0).T
    np.testing.assert_allclose(rule.ranges, expected, rtol=1e-5)
    assert measure_pixels((path,), None, ("per-image",)).rule.values == "per-image"
    with pytest.raises(ConfigError, match="--value-range dtype is for integers"):
        measure_pixels((path,), None, ("dtype",))
    np.save(tmp_path / "b.npy", noise(2, "int16"))
    assert measure_pixels((tmp_path / "b.npy",), None, ("dtype",)).rule.ranges == ((-32768, 32767),)
    with pytest.raises(DataError, match=r"has 2 bands of type int16, but .*a\.npy has 2 bands of type float32"):
        measure_pixels((path, tmp_path / "b.npy"), None, None)
    for wrong in (("4095", "0"), ("0",), ("maximum",), ("0", "nan")):
        with pytest.raises(ConfigError, match=r"--value-range .* is not allowed: give two numbers"):
            parse_value_range(wrong)
    assert parse_value_range(("0 4095",)) == parse_value_range("0 4095") == parse_value_range((0, 4095)) == (0, 4095)
    assert parse_value_range("per-image") == "per-image"


def test_nodata_and_transparency_are_no_measurements(tmp_path: Path) -> None:
    values = np.full((*SIZE, 4), 7, np.int16)
    values[:3] = -9999
    valid = read_raster(write_geotiff(tmp_path / "a.tif", values, nodata=-9999)).valid()
    assert valid is not None
    np.testing.assert_array_equal(valid, values[..., 0] == 7)
    shown = np.full((*SIZE, 4), 200, np.uint8)
    shown[:, :5, 3] = 0
    Image.fromarray(shown).save(tmp_path / "b.png")
    raster = read_raster(tmp_path / "b.png")
    assert raster.bands == 3
    np.testing.assert_array_equal(raster.valid(), shown[..., 3] > 0)


def test_pixels_without_a_measurement_are_ignored_in_masks(tmp_path: Path) -> None:
    values = np.full((*SIZE, 4), 7, np.int16)
    values[:3] = -9999
    image = write_geotiff(tmp_path / "a.tif", values, nodata=-9999)
    Image.fromarray(np.ones(SIZE, np.uint8)).save(tmp_path / "a.png")
    rule = PixelRule("fixed", (1, 2, 3, 4), 4, (), ((0, 10),))
    split = MaskSplit((image,), (tmp_path / "a.png",), rule=rule)
    expected = np.where(values[..., 0] == 7, 1, 255)
    np.testing.assert_array_equal(split.target(0), expected)
    np.testing.assert_array_equal(split.read(0)[1], expected)
