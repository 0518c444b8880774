"""Bands, pages and bit depths that would be dropped or squashed are refused by name."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from cyclemlp.data.images import decode_image, read_image
from cyclemlp.data.rasters import read_raster
from cyclemlp.errors import DataError


def tiff(path: Path, pixels: np.ndarray, photometric: int, extra: Sequence[int] = (), **tags: int) -> Path:
    """An uncompressed TIFF of any number of bands (H, W, C), which Pillow writes only in part."""
    height, width, bands = pixels.shape
    directory = ImageFileDirectory_v2()
    directory[256], directory[257] = width, height
    directory[258] = (8 * pixels.dtype.itemsize,) * bands
    directory[259], directory[262], directory[277], directory[278] = 1, photometric, bands, height
    directory[339] = (tags.get("sample_format", 1),) * bands
    if extra:
        directory[338] = tuple(extra)
    directory[273], directory[279] = 0, pixels.nbytes  # Pillow adds the place where its tags end
    directory.tagtype[273] = 4
    values = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    path.write_bytes(b"II*\0\x08\0\0\0" + directory.tobytes(8) + values)
    return path


def noise(bands: int, dtype: type = np.uint8) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, (12, 16, bands), dtype, endpoint=True)


@pytest.mark.parametrize("extra", [(0,), (0, 0), (2, 0), (0, 0, 0, 0)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_further_bands(tmp_path: Path, extra: tuple[int, ...], dtype: type) -> None:
    path = tiff(tmp_path / "a.tif", noise(3 + len(extra), dtype), 2, extra)
    bands = 3 + len(extra)
    with pytest.raises(DataError, match=rf"a\.tif has {bands} bands, of which an image has 3, .*; save the bands"):
        read_image(path)


@pytest.mark.parametrize("bands", [2, 4, 7])
def test_further_bands_of_grey(tmp_path: Path, bands: int) -> None:
    path = tiff(tmp_path / "a.tif", noise(bands), 1, (0,) * (bands - 1))
    with pytest.raises(DataError, match=rf"a\.tif has {bands} bands, of which an image has 1"):
        read_image(path)


@pytest.mark.parametrize("extra", [(), (1,), (2,)])
def test_a_band_that_is_marked_as_transparency_but_measured(tmp_path: Path, extra: tuple[int, ...]) -> None:
    path = tiff(tmp_path / "a.tif", noise(4), 2, extra)
    with pytest.raises(DataError, match="last band that is marked as transparency, but holds values like those of an"):
        read_image(path)
    with Image.open(path) as opened, pytest.raises(DataError, match="last band that is marked"):
        decode_image(opened)
    pixels = noise(4)
    pixels[..., 3] = 255
    pixels[:4, :, 3] = 0
    read = read_image(tiff(tmp_path / "b.tif", pixels, 2, (2,)))
    np.testing.assert_array_equal(read[4:], pixels[4:, :, :3])
    assert read[:4].min() == 255


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("bands", [1, 3])
def test_fewer_bits_than_16(tmp_path: Path, bits: int, bands: int) -> None:
    values = (noise(bands, np.uint16) >> (16 - bits)).astype(np.uint16)
    path = tiff(tmp_path / "a.tif", values, 2 if bands == 3 else 1)
    with pytest.raises(DataError, match=r"a\.tif has 16-bit values that are all below a quarter of their range"):
        read_image(path)
    with pytest.raises(DataError, match="the image has 16-bit values that are all below a quarter"):
        decode_image(np.repeat(values[..., :1], 3, axis=2))


def test_sixteen_bits_in_three_bands_and_white_as_zero(tmp_path: Path) -> None:
    values = noise(3, np.uint16)
    read = read_image(tiff(tmp_path / "a.tif", values, 2)).astype(int)
    np.testing.assert_allclose(read, values / 257, atol=1)
    grey = noise(1, np.uint16)
    read = read_image(tiff(tmp_path / "b.tif", grey, 0)).astype(int)
    np.testing.assert_allclose(read[..., :1], 255 - grey / 257, atol=1)


def test_values_with_a_sign(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", noise(1).astype(np.int8), 1, sample_format=2)
    with pytest.raises(DataError, match="has values with a sign; save it as unsigned"):
        read_image(path)


def test_further_pages_of_a_palette(tmp_path: Path) -> None:
    page = Image.fromarray(noise(1)[..., 0]).convert("P")
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    for read in (read_image, read_raster):
        with pytest.raises(DataError, match="has 2 pages or frames, and an image has one; save each as a file of its"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.webp"])
def test_further_pages_and_frames(tmp_path: Path, name: str) -> None:
    pages = [Image.fromarray(noise(3)), Image.new("RGB", (16, 12)), Image.new("RGB", (16, 12), "red")]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="has 3 pages or frames, and an image has one; save each as a file of its own"):
        read_image(tmp_path / name)
    if name != "a.tif":
        with pytest.raises(DataError, match="has 3 pages or frames, and an image has one; save each as a file of its"):
            read_raster(tmp_path / name)


def test_smaller_copies_of_an_image_are_no_further_pages(tmp_path: Path) -> None:
    copy = Image.new("RGB", (8, 6))
    copy.encoderinfo = {"tiffinfo": {254: 1}}
    scene = Image.fromarray(noise(3))
    scene.save(tmp_path / "a.tif", save_all=True, append_images=[copy])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.asarray(scene))
