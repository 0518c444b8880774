"""Files of every kind are read bit by bit, as rasterio and tifffile read them; others are refused by name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import rasterio
import tifffile
from packaging.version import Version
from PIL import Image
from rasterio.enums import ColorInterp

from cyclemlp.data.gdal import quiet
from cyclemlp.data.image_errors import ImageError
from cyclemlp.data.images import image_size
from cyclemlp.data.measured_images import read_measured, valid_pixels
from cyclemlp.data.pixel_measurement import measure_pixels
from cyclemlp.data.pixel_rule import PHOTO, PixelRule
from cyclemlp.data.rasters import decoded_size, read_raster
from cyclemlp.data.scenes import open_scene, stored_scene
from cyclemlp.errors import DataError

Values = np.ndarray[Any, Any]
HEIGHT, WIDTH = 48, 64
TYPES = ("uint8", "uint16", "int16", "float32")


def noise(bands: int, dtype: str) -> Values:
    """(H, W, bands)"""
    random = np.random.default_rng(bands)
    if dtype == "float32":
        return random.normal(size=(HEIGHT, WIDTH, bands)).astype(np.float32)
    info = np.iinfo(dtype)
    return random.integers(info.min, info.max, (HEIGHT, WIDTH, bands), dtype, endpoint=True)


def geotiff(path: Path, values: Values, **profile: Any) -> Path:
    size = {"height": values.shape[0], "width": values.shape[1], "count": values.shape[2], "dtype": values.dtype.name}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 1000, 0, -10, 2000)}
    options = {"driver": "GTiff", **place, **profile}
    if options["driver"] == "GTiff":
        options.setdefault("photometric", "minisblack")
    with rasterio.open(path, "w", **size, **options) as file:
        file.write(np.moveaxis(values, -1, 0))
    return path


def planes(path: Path, values: Values, **options: Any) -> Path:
    """By tifffile, a page or a plane for each band."""
    tifffile.imwrite(path, np.moveaxis(values, -1, 0), photometric="minisblack", **options)
    return path


def cog(path: Path, values: Values) -> Path:
    """With smaller copies, as web maps need them."""
    return geotiff(path, values, driver="COG", blocksize=128, overview_count=2)


def jpeg2000(path: Path, values: Values) -> Path:
    return geotiff(path.with_suffix(".jp2"), values, driver="JP2OpenJPEG", quality=100, reversible=True)


def numpy_file(path: Path, values: Values) -> Path:
    np.save(path.with_suffix(".npy"), values)
    return path.with_suffix(".npy")


def numpy_zip(path: Path, values: Values) -> Path:
    np.savez_compressed(path.with_suffix(".npz"), image=values)
    return path.with_suffix(".npz")


KINDS: dict[str, Callable[[Path, Values], Path]] = {
    "strips": lambda path, values: geotiff(path, values, interleave="pixel"),
    "planar": lambda path, values: geotiff(path, values, interleave="band", compress="lzw"),
    "tiled": lambda path, values: geotiff(path, values, tiled=True, blockxsize=16, blockysize=16, compress="deflate"),
    "BigTIFF": lambda path, values: geotiff(path, values, bigtiff="yes", compress="zstd"),
    "big-endian": lambda path, values: planes(path, values, byteorder=">", metadata={"axes": "CYX"}),
    "pages": lambda path, values: planes(path, values, metadata={"axes": "CYX"}),
    "OME-TIFF": lambda path, values: planes(path.with_suffix(".ome.tif"), values, metadata={"axes": "CYX"}),
    "ImageJ": lambda path, values: planes(path, values, imagej=True, metadata={"axes": "CYX"}),
    "COG": cog,
    "JPEG 2000": jpeg2000,
    "npy": numpy_file,
    "npz": numpy_zip,
}
NOT_MADE = {("JPEG 2000", "float32"): "integers alone", ("ImageJ", "int16"): "has no such type"}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_that_were_written(tmp_path: Path, kind: str, dtype: str) -> None:
    if (kind, dtype) == ("BigTIFF", "uint8") and Version(PIL.__version__) < Version("12"):
        pytest.skip("TIFF files of 8 bits compressed with ZSTD: the wheels of Pillow 11 do not read them")
    for bands in () if (kind, dtype) in NOT_MADE else (1, 4, 12):
        values = noise(bands, dtype)
        path = KINDS[kind](tmp_path / f"{bands}.tif", values)
        raster = read_raster(path)
        np.testing.assert_array_equal(raster.values, values)
        assert raster.values.dtype == values.dtype
        if path.suffix in (".tif", ".jp2") and kind not in ("big-endian", "pages", "OME-TIFF", "ImageJ"):
            with rasterio.open(path) as file:
                np.testing.assert_array_equal(np.moveaxis(file.read(), 0, -1), raster.values)
        elif path.suffix == ".tif":
            theirs = tifffile.imread(path)
            np.testing.assert_array_equal(theirs.reshape(bands, HEIGHT, WIDTH), np.moveaxis(raster.values, -1, 0))
        assert image_size(path) == decoded_size(path) == (HEIGHT, WIDTH)
        assert valid_pixels(path) is None


def with_nodata(path: Path) -> Path:
    values = noise(4, "int16")
    values[:5] = -32768
    return geotiff(path, values, nodata=-32768)


def photo_with_nodata(path: Path) -> Path:
    values = np.maximum(noise(3, "uint8"), 1)
    values[:5] = 0
    return geotiff(path, values, nodata=0, photometric="rgb")


def tiff_with_another_name(path: Path) -> Path:
    return photo_with_nodata(path).rename(path.with_suffix(".png"))


def with_numbers_missing(path: Path) -> Path:
    values = noise(4, "float32")
    values[:5, :, 2] = np.nan
    return numpy_file(path, values)


def with_mask_page(path: Path) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        geotiff(path, noise(4, "uint16"))
        with rasterio.open(path, "r+") as file:
            file.write_mask(np.arange(HEIGHT)[:, None].repeat(WIDTH, axis=1) >= 5)
    return path


def jpeg_with_mask_page(path: Path) -> Path:
    """As GDAL stores aerial images: luminance and colour differences."""
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        geotiff(path, noise(3, "uint8"), compress="jpeg", photometric="ycbcr")
        with rasterio.open(path, "r+") as file:
            file.write_mask(np.arange(HEIGHT)[:, None].repeat(WIDTH, axis=1) >= 5)
    return path


def turned_palette_with_mask_file(path: Path) -> Path:
    """The file and its mask have the first row at the bottom."""
    exif = Image.Exif()
    exif[0x0112] = 4
    Image.fromarray(noise(1, "uint8")[..., 0]).convert("P").save(path, exif=exif)
    with quiet(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(np.arange(HEIGHT)[::-1, None].repeat(WIDTH, axis=1) >= 5)
    assert path.with_name(f"{path.name}.msk").exists()
    return path


def transparent(bands: int, dtype: str) -> Values:
    values = noise(bands + 1, dtype)
    values[..., -1] = np.iinfo(dtype).max
    values[:5, :, -1] = 0
    return values


def with_alpha(path: Path) -> Path:
    tifffile.imwrite(path, transparent(4, "uint16"), photometric="rgb", extrasamples=["unspecified", "unassalpha"])
    return path


def photo_with_alpha(path: Path) -> Path:
    Image.fromarray(transparent(3, "uint8")).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def tiff_photo_with_alpha(path: Path) -> Path:
    Image.fromarray(transparent(3, "uint8")).save(path)
    return path


def jpeg2000_with_alpha(path: Path) -> Path:
    path, values = path.with_suffix(".jp2"), transparent(3, "uint8")
    options = {"driver": "JP2OpenJPEG", "quality": 100, "reversible": True}
    size = {"height": HEIGHT, "width": WIDTH, "count": 4, "dtype": "uint8"}
    with quiet(), rasterio.open(path, "w", **options, **size) as file:
        file.write(np.moveaxis(values, -1, 0))
        file.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    return path


@pytest.mark.parametrize(
    "write",
    [
        *(with_nodata, photo_with_nodata, with_numbers_missing, with_mask_page, with_alpha, photo_with_alpha),
        *(tiff_photo_with_alpha, jpeg2000_with_alpha),
        *(jpeg_with_mask_page, turned_palette_with_mask_file, tiff_with_another_name),
    ],
)
def test_pixels_that_are_not_measured_are_known(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / "a.tif")
    wanted = np.arange(HEIGHT)[:, None].repeat(WIDTH, axis=1) >= 5
    np.testing.assert_array_equal(valid_pixels(path), wanted)
    rule = measure_pixels((path,), None, None).rule
    read = read_measured(path, rule)
    np.testing.assert_array_equal(read.valid, wanted)
    assert read.pixels.shape[:2] == wanted.shape


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_few_bits_are_as_bright_in_windows_as_in_the_whole_image(tmp_path: Path, bits: int) -> None:
    values = noise(1, "uint8") >> (8 - bits)
    path = geotiff(tmp_path / "few.tif", values, nbits=bits)
    with open_scene(path, PHOTO) as scene:
        pixels = scene.pixels(slice(0, HEIGHT), slice(0, WIDTH))
    whole = read_measured(path, PHOTO).pixels
    assert whole.max() == 255
    np.testing.assert_array_equal(np.broadcast_to(pixels, whole.shape), whole)


def test_nodata_in_jpeg(tmp_path: Path) -> None:
    values = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    values[:16] = 0  # a row of the blocks that JPEG compresses
    path = geotiff(tmp_path / "a.tif", values, compress="jpeg", photometric="ycbcr", blockysize=16, nodata=0)
    np.testing.assert_array_equal(valid_pixels(path), values[..., 0] > 0)


def test_a_fourth_band_that_gdal_marks_as_transparency_is_a_band(tmp_path: Path) -> None:
    values = noise(4, "uint8")
    values[0, 0, 3] = 0
    path = geotiff(tmp_path / "a.tif", values, alpha="yes", photometric="rgb")  # as GDAL does it by itself
    with rasterio.open(path) as file:
        assert file.colorinterp[3] is ColorInterp.alpha
    rule = measure_pixels((path,), None, None).rule
    assert (rule.bands, rule.file_bands) == ((1, 2, 3, 4), 4)
    np.testing.assert_array_equal(read_measured(path, rule).pixels, values)
    assert read_measured(path, rule).valid is None
    values[..., 3] = 255  # bright everywhere, so that it looks like transparency
    bright = geotiff(tmp_path / "b.tif", values, alpha="yes", photometric="rgb")
    np.testing.assert_array_equal(read_measured(bright, rule).pixels, values)
    measure_pixels.cache_clear()
    assert measure_pixels((bright, path), None, None).rule == rule
    with pytest.raises(DataError, match="holds values like those of an image"):
        read_measured(path, PHOTO)


def test_a_fourth_band_of_values_hides_nothing(tmp_path: Path) -> None:
    """Near infrared is 0 on water, and many programs mark it as transparency."""
    values = noise(4, "uint8")
    values[:20, :, 3] = 0
    path = geotiff(tmp_path / "a.tif", values, alpha="yes", photometric="rgb")
    rule = measure_pixels((path,), (3, 2, 1), None).rule
    assert (rule.bands, rule.file_bands) == ((3, 2, 1), 4)
    values[:40, :, 3] = 0  # of most pixels, as if it were transparency
    water = geotiff(tmp_path / "b.tif", values, alpha="yes", photometric="rgb")
    everywhere = slice(0, HEIGHT), slice(0, WIDTH)
    for each in (path, water):
        assert read_measured(each, rule).valid is None
        assert valid_pixels(each, rule) is None
        with stored_scene(each, rule) as scene:
            assert scene.valid(everywhere[0]) is None
            assert scene.measured(everywhere)[1] is None


def test_ranges_of_single_images_leave_out_what_is_not_measured(tmp_path: Path) -> None:
    path = with_nodata(tmp_path / "a.tif")
    rule = PixelRule("per-image", (1, 2, 3, 4), 4)
    measured = np.maximum(noise(4, "int16").astype(float), -32767)[5:]
    expected = np.clip((measured + 32767) / 65534, 0, 1) * 255
    np.testing.assert_allclose(read_measured(path, rule).pixels[5:], expected, atol=1.5)


def test_band_names_are_compared(tmp_path: Path) -> None:
    names = ("blue", "green", "red", "nir")
    first, other = (geotiff(tmp_path / name, noise(4, "uint16")) for name in ("a.tif", "b.tif"))
    for path, given in ((first, names), (other, names[::-1])):
        with rasterio.open(path, "r+") as file:
            file.descriptions = given
    rule = measure_pixels((first,), (4, 1), None).rule
    assert rule.names == ("nir", "blue")
    with pytest.raises(
        DataError, match=r"b\.tif has the bands blue, nir, but the model was trained on nir, blue: choo"
    ):
        read_measured(other, rule)
    with pytest.raises(
        DataError, match=r"b\.tif has the bands nir, red, green, blue, but .*a\.tif has blue, green, re"
    ):
        measure_pixels((first, other), None, None)
    with rasterio.open(other, "r+") as file:
        file.descriptions = ("2020 a", "2020 b", "2020 c", "2020 d")
    measure_pixels.cache_clear()
    assert measure_pixels((first, other), None, None).rule.names == ()


def complex_values(path: Path) -> Path:
    return geotiff(path, np.zeros((4, 4, 1), np.complex64))


def depth_stack(path: Path) -> Path:
    tifffile.imwrite(path, np.zeros((3, 2, 8, 8), np.uint16), imagej=True, metadata={"axes": "ZCYX"})
    return path


def part_of_several_files(path: Path) -> Path:
    """The first of two files whose description says that each holds one of the image's two planes."""
    description = tifffile.OmeXml()
    description.addimage("uint16", (2, 8, 8), (2, 1, 1, 8, 8, 1), axes="CYX")
    files = "".join(
        f'<TiffData FirstC="{place}" IFD="0"><UUID FileName="{name}">urn:uuid:{place}</UUID></TiffData>'
        for place, name in enumerate(("a.tif", "b.tif"))
    )
    text = re.sub(r"<TiffData[^>]*/>", files, description.tostring())
    for place, name in enumerate(("a.tif", "b.tif")):
        own = re.sub(r'(<OME [^>]*UUID=")[^"]*', rf"\g<1>urn:uuid:{place}", text)
        pages = np.zeros((2, 8, 8), np.uint16)
        tifffile.imwrite(path.with_name(name), pages, description=own.encode(), metadata=None, photometric=1)
    return path.with_name("a.tif")


def several_arrays(path: Path) -> Path:
    np.savez(path.with_suffix(".npz"), a=np.zeros((4, 4)), b=np.zeros((4, 4)))
    return path.with_suffix(".npz")


def cut_off(path: Path) -> Path:
    path = jpeg2000(path, noise(3, "uint8"))
    path.write_bytes(path.read_bytes()[:200])
    return path


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (complex_values, "has values of type complex64; convert them to uint8, uint16, int16, float32"),
        (depth_stack, "has 6 pages or planes"),
        (part_of_several_files, "whose other planes are in other files; save the image with all its planes in one"),
        (several_arrays, "has 2 arrays, and an image is one"),
        (cut_off, "is damaged or incomplete"),
        (lambda path: jpeg2000(path, noise(4, "uint8")), ""),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path: Path, write: Callable[[Path], Path], message: str) -> None:
    path = write(tmp_path / "a.tif")
    if not message:  # more bands than a photograph
        with pytest.raises(ImageError, match="has 4 bands of type uint8, and the model was trained on photographs"):
            read_measured(path, PHOTO)
        return
    with pytest.raises(ImageError, match=rf"{path.name} .*{message}"):
        read_raster(path)
