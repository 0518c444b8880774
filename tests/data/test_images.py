import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cyclemlp.data import image_errors
from cyclemlp.data.image_errors import ImageError
from cyclemlp.data.images import decode_image, image_size, list_images, read_image
from cyclemlp.data.stored_masks import read_mask
from cyclemlp.errors import DataError

RED = (200, 20, 40)
SUFFIXES = ("jpg", "png", "bmp", "webp", "tif")


def scene() -> Image.Image:
    """Four flat colours in a 64x48 image, so that JPEG is near the original and every turn is visible."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :32], pixels[:24, 32:], pixels[24:, :32], pixels[24:, 32:] = RED, (20, 200, 40), (30, 40, 220), 250
    return Image.fromarray(pixels)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_reads_as_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scene.{suffix}"
    scene().save(path, quality=95)
    pixels = read_image(path)
    assert pixels.shape == (48, 64, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable  # torch warns of read-only arrays
    inner = np.s_[4:20, 4:28]
    np.testing.assert_allclose(pixels[inner].astype(int), np.asarray(scene())[inner].astype(int), atol=6)  # JPEG


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != "bmp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_pixels_and_size(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    scene().save(path, exif=exif, quality=95)
    pixels = read_image(path)
    assert image_size(path) == pixels.shape[:2] == ((64, 48) if orientation >= 5 else (48, 64))
    # Where the image's top left corner is shown, by the EXIF standard.
    row, column = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[
        orientation
    ]
    np.testing.assert_allclose(pixels[row, column].astype(int), RED, atol=8)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    pixels = read_image(tmp_path / "deep.png")
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr"])
def test_other_colour_models_are_converted(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    Image.new("RGB", (16, 16), (255, 255, 255)).convert(mode).save(path)
    assert read_image(path).min() >= 254


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_on_white(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (8, 8), 0)  # black and wholly transparent
    image.save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png").min() == 255


def test_transparent_palette_entry_is_composited_on_white(tmp_path: Path) -> None:
    Image.new("P", (8, 8), 0).save(tmp_path / "clear.png", transparency=0)
    assert read_image(tmp_path / "clear.png").min() == 255


def test_mask_values_are_kept(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    palette = Image.fromarray(values)
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.save(tmp_path / "palette.png")
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "deep.png")
    for name in ("grey", "palette", "deep"):
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png"), values)


def test_bilevel_mask_is_zero_and_one(tmp_path: Path) -> None:
    Image.fromarray(np.eye(8, dtype=bool)).save(tmp_path / "two.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "two.png"), np.eye(8))


def refusal(path: Path) -> str:
    """The one line that says why `path` is refused."""
    with pytest.raises(DataError) as error:
        read_image(path)
    message = str(error.value)
    assert message.startswith(f"{path} ")
    assert "\n" not in message
    assert "; " in message  # what is wrong; what to do
    return message


def test_empty_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert "is empty (0 bytes); replace or remove it" in refusal(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_file_says_so(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "is damaged or incomplete" in refusal(path)


def test_other_content_says_what_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("<html>not found</html>")
    assert "is not an image in a known format; convert it to JPEG/PNG/BMP/WEBP/TIFF" in refusal(tmp_path / "a.jpg")


def test_format_outside_the_list_is_refused_even_where_pillow_knows_it(tmp_path: Path) -> None:
    scene().save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    assert "is not an image in a known format" in refusal(tmp_path / "a.png")


def test_missing_file_and_folder_say_so(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "none.png")
    (tmp_path / "folder.png").mkdir()
    assert "cannot be read: Is a directory" in refusal(tmp_path / "folder.png")


def bomb(path: Path, width: int, height: int) -> None:
    """A PNG of some kilobytes that unpacks to width x height black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 1) * height), 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


@pytest.mark.parametrize(("width", "height"), [(12000, 12000), (20000, 20000)])
def test_decompression_bomb_is_refused_unread(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "bomb.png"
    bomb(path, width, height)
    assert path.stat().st_size < 100_000
    assert "unpacks to more than 134 million pixels, the limit; cut it into tiles" in refusal(path)
    for read in (image_size, read_mask):
        with pytest.raises(DataError, match="134 million"):
            read(path)


def test_image_that_pillow_only_warns_of_is_read(tmp_path: Path) -> None:
    bomb(tmp_path / "large.png", 12000, 8000)  # 96 million pixels: over Pillow's warning, under our limit
    assert image_size(tmp_path / "large.png") == (8000, 12000)


def test_too_many_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene().save(tmp_path / "a.bmp")
    monkeypatch.setattr(image_errors, "MAX_FILE_BYTES", 2**10)
    assert "over the limit of 0 MB; cut it into tiles" in refusal(tmp_path / "a.bmp")


def test_32_bit_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "a.tif")
    assert "has 32-bit pixels; save it with 8 or 16 bits per channel" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_coloured_mask_is_refused(tmp_path: Path, mode: str) -> None:
    Image.new("RGB", (8, 8), (1, 2, 3)).convert(mode).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"is an RGB image and no list says .*; list the colours in classes\.txt"):
        read_mask(tmp_path / "a.png")


def test_mask_value_over_255_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"holds the value 300, but masks hold class numbers .*; renumber"):
        read_mask(tmp_path / "a.png")


def test_list_is_sorted_and_takes_any_case(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", "c.Tiff", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpeg", "b.PNG", "c.Tiff"]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("encoded")
    exif = Image.Exif()
    exif[0x0112] = 6
    files = []
    for suffix in SUFFIXES:
        path = folder / f"a.{suffix}"
        scene().resize((16, 12)).save(path, exif=exif)  # the BMP has no place for it
        files.append(path.read_bytes())
    return files


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_never_raises_anything_else(data: st.DataObject, encoded: list[bytes], tmp_path: Path) -> None:
    content = bytearray(data.draw(st.sampled_from(encoded)))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    for read in (read_image, read_mask, image_size):
        try:
            read(path)
        except ImageError as error:
            assert "\n" not in str(error)  # noqa: PT017 (most of these files are readable or not by chance)


def test_a_path_an_image_and_an_array_of_16_bits_are_the_same(tmp_path: Path) -> None:
    values = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    path = tmp_path / "deep.png"
    Image.fromarray(values).save(path)
    expected = read_image(path)
    assert expected.mean() == pytest.approx(127.5, abs=0.2)
    with Image.open(path) as opened:
        for given in (path, str(path), opened, Image.fromarray(values), values):
            np.testing.assert_array_equal(decode_image(given), expected)
    np.testing.assert_array_equal(decode_image(np.repeat(values[..., None], 3, axis=2)), expected)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_image_is_the_same_as_its_file(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    scene().save(path, exif=exif)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(decode_image(opened), read_image(path))


def test_an_orientation_of_an_odd_type_is_ignored(tmp_path: Path) -> None:
    image = scene()
    image.getexif()[0x0112] = "upright"
    np.testing.assert_array_equal(decode_image(image), np.asarray(scene()))


@pytest.mark.parametrize("mode", ["CMYK", "RGBA", "LA", "P", "1", "L"])
def test_a_pillow_image_of_any_mode_is_the_same_as_its_file(tmp_path: Path, mode: str) -> None:
    image = scene().convert(mode)
    if mode == "RGBA":
        image.putalpha(77)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    np.testing.assert_array_equal(decode_image(image), read_image(path))


def test_limits_hold_for_pillow_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_errors, "MAX_PIXELS", 1000)
    with pytest.raises(ImageError, match="the image unpacks to more than 0 million pixels"):
        decode_image(scene())
    with pytest.raises(ImageError, match="the image has 32-bit pixels; save it with 8 or 16 bits"):
        decode_image(Image.new("F", (8, 8)))
    scene().save(tmp_path / "cut.bmp")
    (tmp_path / "cut.bmp").write_bytes((tmp_path / "cut.bmp").read_bytes()[:200])
    monkeypatch.undo()
    with Image.open(tmp_path / "cut.bmp") as cut, pytest.raises(ImageError, match=r"cut\.bmp is damaged or incomplete"):
        decode_image(cut)


@pytest.mark.parametrize(("bits", "greys"), [(8, (0, 255)), (4, (0, 255)), (4, range(16))])
def test_a_bmp_that_pillow_unpacks_by_other_bits_is_refused(tmp_path: Path, bits: int, greys: Iterable[int]) -> None:
    """Of two colours in 8 bits it made noise, of the mask and of the image."""
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in greys)
    header = struct.pack("<IiiHHIIiiII", 40, 32, 16, 1, bits, 0, 0, 0, 0, len(palette) // 4, 0)
    start = 14 + len(header) + len(palette)
    pixels = bytes(np.eye(16, 4 * bits, dtype=np.uint8))
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 0, 0, 0, start) + header + palette + pixels)
    for read in (read_image, read_mask, image_size):
        with pytest.raises(ImageError, match=rf"has a palette of grey and {bits} bits .* wrongly; save it as PNG"):
            read(tmp_path / "a.bmp")


def test_a_bmp_of_one_bit_is_read(tmp_path: Path) -> None:
    scene().convert("1").save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(read_image(tmp_path / "a.bmp")[..., 0], np.asarray(scene().convert("1")) * 255)


def test_what_is_not_an_image_is_refused_with_what_is_accepted() -> None:
    with pytest.raises(TypeError, match=r"a path, a Pillow image or a numpy array of uint8 or uint16 values, not list"):
        decode_image([[0, 1]])  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"shape \(4, 4\) and type int64: give an array .*uint16 values 0 to 65535"):
        decode_image(np.zeros((4, 4), np.int64))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="an image with 3 channels, but the model was trained on 4"):
        decode_image(scene(), channels=4)
    assert decode_image(np.zeros((4, 5, 4), np.uint8), channels=4).shape == (4, 5, 4)


def test_a_tag_of_another_type_is_a_damaged_file(tmp_path: Path) -> None:
    """An XMP packet stored as a number: Pillow looks for text in it and raises TypeError."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    tags.tagtype[700] = 4
    tags[700] = 5
    path = tmp_path / "odd.tif"
    Image.new("RGB", (4, 4)).save(path, tiffinfo=tags)
    with pytest.raises(ImageError, match=r"odd\.tif is damaged or incomplete"):
        read_image(path)


@pytest.mark.parametrize("error", [TypeError("odd"), AttributeError("odd"), ZeroDivisionError("odd"), KeyError("odd")])
def test_whatever_the_decoder_raises_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)

    def load(_: Image.Image) -> None:
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(ImageError, match=r"a\.png is damaged or incomplete \(.*odd"):
        read_image(path)


def test_a_fault_of_the_disk_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)

    def load(_: Image.Image) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(ImageError, match=r"a\.png cannot be read: Input/output error"):
        read_image(path)
