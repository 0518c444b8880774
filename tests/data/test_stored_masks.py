"""A number that a mask stores means what its author meant, or the file is refused by name."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemlp.data.inspect import DatasetReport, inspect_dataset
from cyclemlp.data.masks import read_target
from cyclemlp.data.stored_masks import read_mask, read_stored_mask
from cyclemlp.errors import DataError

WriteDataset = Callable[..., Path]
Values = np.ndarray[tuple[int, int], np.dtype[np.uint8]]


def grey_png(values: Values, bits: int, chunks: bytes = b"") -> bytes:
    """A grey PNG of 1 to 8 bits, which Pillow does not write; `chunks` stand before the pixels."""

    def packed(row: Values) -> bytes:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text = text.ljust(-len(text) // 8 * -8, "0")
        return bytes([0, *(int(text[place : place + 8], 2) for place in range(0, len(text), 8))])

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(map(packed, values)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def replace_masks(root: Path, change: Callable[[Values, Path], object]) -> Path:
    """`change(values, path)` rewrites each mask of a data set."""
    for path in sorted(root.glob("masks/*/*.png")):
        values = np.asarray(Image.open(path)).copy()
        path.unlink()
        change(values, path)
    return root


def remarks(report: DatasetReport) -> str:
    return "\n".join(map(str, (*report.problems, *report.notes)))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_values_of_few_bits_are_those_stored(tmp_path: Path, bits: int) -> None:
    values = (np.arange(35, dtype=np.uint8) % min(2**bits, 16)).reshape(5, 7)
    (tmp_path / "a.png").write_bytes(grey_png(values, bits))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), values)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_numbers_of_few_bits_are_those_stored(tmp_path: Path, bits: int) -> None:
    values = (np.arange(35, dtype=np.uint8) % min(2**bits, 16)).reshape(5, 7)
    palette = Image.fromarray(values)
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.save(tmp_path / "a.png", bits=bits)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), values)
    assert read_stored_mask(tmp_path / "a.png").colours[1] == tuple(palette.getpalette() or ())[3:6]


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {}), ("WEBP", {}), ("TIFF", {}), ("BMP", {})])
def test_a_mask_that_only_its_name_makes_a_png(tmp_path: Path, kind: str, options: dict[str, str]) -> None:
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "a.png", kind, **options)
    with pytest.raises(DataError, match=rf"a\.png is a {kind} file, whatever its suffix, but a mask is a PNG"):
        read_mask(tmp_path / "a.png")


def test_a_mask_of_several_frames(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (0, 1)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"a\.png has 2 pages or frames"):
        read_mask(tmp_path / "a.png")


def test_colours_without_a_list_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "colours.png")
    with pytest.raises(DataError, match=r"no list says which colour is which class; it has 1 2 3 \(64 pixels\); list"):
        read_mask(tmp_path / "colours.png")


def test_255_stays_ignored_where_0_is_ignored(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 2, 254, 255]], np.uint8)).save(tmp_path / "a.png")
    assert read_target(tmp_path / "a.png", zero_ignored=True).tolist() == [[255, 0, 1, 253, 255]]


@pytest.fixture
def ade20k(tmp_path: Path) -> Path:
    """Values 0, 1 and 2 of the file; two names."""
    for split in ("training", "validation"):
        for folder in ("images", "annotations"):
            (tmp_path / folder / split).mkdir(parents=True)
        Image.new("RGB", (3, 2)).save(tmp_path / "images" / split / "a.jpg")
        mask = Image.fromarray(np.array([[0, 1, 2], [0, 1, 255]], np.uint8))
        mask.save(tmp_path / "annotations" / split / "a.png")
    (tmp_path / "classes.txt").write_text("wall\nsky\n")
    return tmp_path


def test_255_in_the_layout_of_ade20k(ade20k: Path) -> None:
    train = inspect_dataset(ade20k).splits["train"]
    assert (train.of_class, train.ignored) == ({"wall": 2, "sky": 1}, 3)
    note = f"{ade20k} has the folders of ADE20K, but no objectInfo150.txt: 0 in a mask is ignored, and 1 is wall"
    assert note in "\n".join(map(str, inspect_dataset(ade20k).notes))
    (ade20k / "classes.txt").unlink()
    assert inspect_dataset(ade20k).dataset.classes == ("class0", "class1")


def test_messages_about_ade20k_have_the_numbers_of_the_file(ade20k: Path) -> None:
    path = ade20k / "annotations/training/a.png"
    Image.fromarray(np.array([[0, 1, 3], [0, 1, 255]], np.uint8)).save(path)
    what = "holds the value 3, outside the 2 classes (1 to 2, and 0 and 255 for ignore)"
    assert what in str(inspect_dataset(ade20k).problems[0])
    for path in ade20k.glob("annotations/*/a.png"):
        Image.fromarray(np.array([[0, 0, 0], [0, 255, 255]], np.uint8)).save(path)
    problems = "\n".join(map(str, inspect_dataset(ade20k).problems))
    assert "hold at most one class (1) and the ignored values 0 and 255" in problems


def in_palette(colours: list[int]) -> Callable[[Values, Path], object]:
    def write(values: Values, path: Path) -> None:
        image = Image.fromarray(values)
        image.putpalette(colours + [7] * (768 - len(colours)))
        image.save(path)

    return write


def test_a_number_that_has_another_colour_in_another_mask(write_dataset: WriteDataset) -> None:
    root = replace_masks(write_dataset(), in_palette([0, 0, 0, 255, 0, 0, 9, 9, 9]))
    assert inspect_dataset(root).problems == ()
    path = root / "masks/val/c.png"
    values = np.asarray(Image.open(path)).copy()
    in_palette([0, 0, 0, 255, 0, 0, 8, 8, 8])(values, path)  # the colours of unused numbers mean nothing
    assert inspect_dataset(root).problems == ()
    in_palette([255, 0, 0, 0, 0, 0])(values, path)
    (problem,) = inspect_dataset(root).problems
    first = root / "masks/train/a.png"
    assert str(problem) == (
        f"{path} has a palette of its own: 0 is the colour (255, 0, 0), but (0, 0, 0) in {first};"
        " give all masks one palette, so that a number means the same class in each"
    )


def test_numbers_that_are_marked_as_transparent_are_noted(write_dataset: WriteDataset) -> None:
    def marked(values: Values, path: Path) -> None:
        path.write_bytes(grey_png(values % 3, 2, chunk(b"tRNS", b"\0\1")))

    report = inspect_dataset(replace_masks(write_dataset(), marked))
    assert report.problems == ()
    assert "a.png marks 1 as transparent, as do 1 further masks, which counts as a class" in str(report.notes[0])


@pytest.mark.parametrize("levels", [(0, 128), (0, 85, 170), (0, 51, 102)])
def test_levels_of_grey_are_no_class_numbers(write_dataset: WriteDataset, levels: tuple[int, ...]) -> None:
    def write(values: Values, path: Path) -> None:
        values[:] = np.resize((*levels, 255), values.shape)
        Image.fromarray(values).save(path)

    report = inspect_dataset(replace_masks(write_dataset(classes=None), write))
    assert "which are levels of grey and not class numbers; write the classes as 0, 1, 2" in str(report.problems[0])


def test_smoothed_drawings_are_no_class_numbers(write_dataset: WriteDataset) -> None:
    def write(values: Values, path: Path) -> None:
        values[:] = 0
        values[:, 24:] = 255
        values[:, 20:28] = np.linspace(10, 240, 8).astype(np.uint8)
        Image.fromarray(values).save(path)

    problems = inspect_dataset(replace_masks(write_dataset(classes=None), write)).problems
    assert "black-and-white drawings do that were smoothed; write every pixel as 0 or 1" in str(problems[0])


def turned(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.save(path, exif=exif)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_an_image_that_is_turned_by_90_degrees_without_its_mask(write_dataset: WriteDataset, orientation: int) -> None:
    root = write_dataset()
    turned(root / "images/train/a.png", orientation)
    problem = next(each for each in inspect_dataset(root).problems if each.path.name == "a.png")
    what = "is 48x32 (width x height), its image 32x48, since the EXIF orientation of a.png turns that by 90 degrees"
    assert what in problem.what
    assert problem.fix == "turn the mask likewise, or remove the tag from a.png"
    turned(root / "masks/train/a.png", orientation)
    assert inspect_dataset(root).problems == ()


def test_a_mask_that_is_turned_without_its_image(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    turned(root / "masks/train/a.png", 6)
    assert "since the EXIF orientation of the mask turns it" in str(inspect_dataset(root).problems[0])


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_turns_within_the_size_are_noted(write_dataset: WriteDataset, orientation: int) -> None:
    root = write_dataset()
    turned(root / "images/val/c.png", orientation)
    report = inspect_dataset(root)
    assert report.problems == ()
    what = "c.png is turned by 90 or 180 degrees or mirrored by the EXIF orientation; masks are taken to be drawn on"
    assert what in remarks(report)
    turned(root / "masks/val/c.png", orientation)
    assert inspect_dataset(root).notes == ()


def test_a_square_image_that_is_turned_by_90_degrees_is_noted(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for folder, values in (("images", np.zeros((8, 8, 3), np.uint8)), ("masks", np.eye(8, dtype=np.uint8))):
            (tmp_path / folder / split).mkdir(parents=True)
            Image.fromarray(values).save(tmp_path / folder / split / "a.png")
    turned(tmp_path / "images/train/a.png", 6)
    assert "images/train/a.png is turned by 90 or 180 degrees" in remarks(inspect_dataset(tmp_path))


@pytest.mark.parametrize("classes", [None, ("ground", "water")])
@pytest.mark.parametrize("split", ["train", "val"])
def test_255_that_is_a_class_in_one_split_alone(
    write_dataset: WriteDataset, classes: tuple[str, str] | None, split: str
) -> None:
    """Otherwise it would be ignored there, and the class never learnt or never scored."""
    root = write_dataset(classes=classes)
    for path in root.glob("masks/*/*.png"):
        white = 255 if path.parent.name == split else 1
        Image.fromarray((np.eye(32, 48) * white).astype(np.uint8)).save(path)
    other = {"train": "val", "val": "train"}[split]
    what = (
        f"masks/{split} hold 0 and 255 alone, but those of {other} 1, so that 255 is ignored in both; write one number"
    )
    assert any(what in str(problem) for problem in inspect_dataset(root).problems)


def test_255_that_may_be_a_class_in_some_masks_is_noted(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    Image.fromarray((np.eye(32, 48) * 255).astype(np.uint8)).save(root / "masks/train/b.png")
    report = inspect_dataset(root)
    assert report.problems == ()
    assert "b.png holds 0 and 255 alone where others hold 1, and 255 is ignored in all; where 255 stands" in remarks(
        report
    )
