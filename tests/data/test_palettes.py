"""Masks in colours: each colour is the class that a list gives it, or the mask is refused by name."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemlp.data.check_cache import state_of
from cyclemlp.data.fingerprint import labels_digest
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.palettes import Palette, from_texts, parse_palette, read_palette
from cyclemlp.data.problems import DataRequest, FileError
from cyclemlp.data.stored_masks import read_stored_mask
from cyclemlp.errors import DataError

WriteDataset = Callable[..., Path]
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (224, 224, 192)
LISTED = "ground 0 255 0\nwater #0000ff\nvoid 224 224 192\n"


def parsed(text: str) -> Palette:
    found = parse_palette(Path("p.txt"), text.splitlines())
    assert found is not None
    return found


def coloured(
    root: Path, colours: tuple[tuple[int, int, int], ...] = (GREEN, BLUE, WHITE), listed: str = LISTED
) -> Path:
    """The data set with 0, 1 and 255 of its masks as colours."""
    for path in root.glob("masks/*/*.png"):
        values = np.asarray(Image.open(path))
        rgb = np.zeros((*values.shape, 3), np.uint8)
        for value, colour in zip((0, 1, 255), colours, strict=True):
            rgb[values == value] = colour
        Image.fromarray(rgb).save(path)
    (root / "classes.txt").write_text(listed)
    return root


@pytest.mark.parametrize(
    "text",
    [
        "sea ice 0 0 255\nland #FF0000\nvoid 1 2 3\n",
        "sea ice,0,0,255\nland,255,0,0\nvoid,1,2,3\n",
        "name,r,g,b\nsea ice, 0, 0, 255\nland, 255, 0, 0\nVoid, 1, 2, 3\n",
        "0 0 255\tsea ice\n255 0 0\tland\n\n1 2 3\tvoid\n",
        "sea ice: #0000ff\nland: #ff0000\nunlabelled: #010203\n",
    ],
)
def test_ways_to_list_colours(text: str) -> None:
    palette = parsed(text)
    assert palette.classes == ("sea ice", "land")
    assert palette.ignored == ((1, 2, 3),)
    rgb = np.array([[(0, 0, 255), (255, 0, 0), (1, 2, 3)]], np.uint8)
    assert palette.numbers(rgb, Path("a.png")).tolist() == [[0, 1, 255]]
    assert from_texts(palette.texts()) == palette


def test_names_alone_are_no_palette() -> None:
    assert parse_palette(Path("p.txt"), ["ground", "zone 1 2", "water"]) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1 2 3\nb\n", "has no colour in line 2 ('b'), as others have"),
        ("a 1 2 3\nb 1 2 300\n", "has no colour in line 2 ('b 1 2 300')"),
        ("a 1 2 3\n5 1 2 4\n", "has no colour in line 2 ('5 1 2 4')"),
        ("a 1 2 3\nb 1 2 3\n", "gives the colour 1 2 3 to both 'a' and 'b'; give each class a colour of its own"),
        ("a 1 2 3\na 1 2 4\n", "has 'a' more than once; give each class one line and one colour"),
        ("a 1 2 3\nvoid 1 2 4\n", "names 1 classes with colours; write 2 to 255; ignore and void are no classes"),
    ],
)
def test_unusable_lists_of_colours(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.txt"
    path.write_text(text)
    with pytest.raises(FileError, match=re.escape(f"{path} {message}")):
        read_palette(path)


def test_colours_of_classes_txt_are_classes(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    before = find_dataset(root, MaskDataset)
    targets = [before.splits["train"].target(0), before.splits["val"].target(0)]
    dataset = find_dataset(coloured(root), MaskDataset)
    assert (dataset.classes, dataset.named) == (("ground", "water"), True)
    np.testing.assert_array_equal(dataset.splits["train"].target(0), targets[0])
    np.testing.assert_array_equal(dataset.splits["val"].target(0), targets[1])
    report = inspect_dataset(root)
    assert report.problems == ()
    assert report.splits["val"].counts() == [("ground", 22 * 48), ("water", 8 * 48), ("(ignored)", 2 * 48)]


def test_a_class_and_ignored_pixels_alone_are_no_black_and_white(write_dataset: WriteDataset) -> None:
    root = coloured(write_dataset(), (GREEN, GREEN, WHITE))
    assert np.unique(find_dataset(root, MaskDataset).splits["val"].target(0)).tolist() == [0, 255]


def test_a_palette_that_is_given_as_a_file(write_dataset: WriteDataset, tmp_path: Path) -> None:
    root = coloured(write_dataset(), listed="ground\nwater\n")
    with pytest.raises(DataError, match=r"is an RGB image and no list says which colour .* such as `building 255 0 0`"):
        find_dataset(root, MaskDataset).splits["val"].target(0)
    (tmp_path / "p.txt").write_text("ground #00ff00\nwater 0 0 255\nignore 224 224 192")
    request = DataRequest(palette=read_palette(tmp_path / "p.txt"))
    dataset = find_dataset(root, MaskDataset, request)
    assert np.unique(dataset.splits["val"].target(0)).tolist() == [0, 1, 255]
    assert inspect_dataset(root, request).problems == ()
    swapped = DataRequest(palette=parsed("water 0 255 0\nground 0 0 255\nignore 224 224 192"))
    other = find_dataset(root, MaskDataset, swapped)
    assert labels_digest(other, ("val",)) != labels_digest(dataset, ("val",))
    assert state_of(other) != state_of(dataset)


def test_an_evaluation_takes_the_colours_of_its_own_data(write_dataset: WriteDataset) -> None:
    root = coloured(write_dataset())
    others = parsed("sky 0 255 0\ngrass 0 0 255\n")
    assert find_dataset(root, MaskDataset, DataRequest("val", palette=others)).classes == ("ground", "water")
    (root / "classes.txt").unlink()
    assert find_dataset(root, MaskDataset, DataRequest("val", palette=others)).classes == ("sky", "grass")


def test_a_colour_that_is_not_listed_is_named_with_its_pixels_and_file(write_dataset: WriteDataset) -> None:
    root = coloured(write_dataset(), (GREEN, BLUE, RED))
    what = "a.png has 1 colour that no class has: 255 0 0 (96 pixels); list it with its class, or as `ignore RED"
    (first, *_) = inspect_dataset(root).problems
    assert what in str(first)
    with pytest.raises(DataError, match=re.escape(what)):
        find_dataset(root, MaskDataset).splits["train"].target(0)


def test_smoothed_colours_are_told_so(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"has \d+ colours that no class has: .*, \.\.\.; draw it without smoothing"):
        read_stored_mask(tmp_path / "a.png", parsed(LISTED))


def test_a_list_with_colours_under_its_usual_names(write_dataset: WriteDataset) -> None:
    root = coloured(write_dataset())
    (root / "classes.txt").unlink()
    (root / "class_dict.csv").write_text("name,r,g,b\nground,0,255,0\nwater,0,0,255\nvoid,224,224,192\n")
    assert find_dataset(root, MaskDataset).classes == ("ground", "water")


def test_lists_of_the_splits_that_differ(write_dataset: WriteDataset) -> None:
    root = write_dataset(classes=None)
    for kind, text in (("train", "ground\nwater\n"), ("val", "water\nground\n")):
        (root / "masks" / kind / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=r"val/classes\.txt lists other classes than .*train/classes\.txt; make them"):
        find_dataset(root, MaskDataset)
    (root / "masks/val/classes.txt").write_text("ground\nwater\n")
    assert find_dataset(root, MaskDataset).classes == ("ground", "water")


def test_palettes_of_files_are_read_by_colour_where_colours_are_listed(tmp_path: Path) -> None:
    palette = parsed(LISTED)
    for name, order in (("a", (GREEN, BLUE, WHITE)), ("b", (WHITE, BLUE, GREEN))):
        image = Image.fromarray(np.array([[order.index(each) for each in (GREEN, BLUE, WHITE)]], np.uint8))
        image.putpalette([value for colour in order for value in colour])
        image.save(tmp_path / f"{name}.png")
        assert read_stored_mask(tmp_path / f"{name}.png", palette).numbers.tolist() == [[0, 1, 255]]
        by_number = read_stored_mask(tmp_path / f"{name}.png")
        assert by_number.numbers[0].tolist() == [order.index(each) for each in (GREEN, BLUE, WHITE)]
        assert by_number.colours[0] == order[0]


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "LA"])
def test_black_and_white_by_colour_in_every_kind_of_image(tmp_path: Path, mode: str) -> None:
    values = (np.eye(4, 5) * 255).astype(np.uint8)
    Image.fromarray(values).convert(mode).save(tmp_path / "a.png")
    palette = parsed("house 255 255 255\nrest 0 0 0\n")
    np.testing.assert_array_equal(read_stored_mask(tmp_path / "a.png", palette).numbers, 1 - np.eye(4, 5))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_in_several_equal_channels_is_a_number(tmp_path: Path, mode: str) -> None:
    values = (np.eye(4, 5) * 7).astype(np.uint8)
    Image.fromarray(values).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_stored_mask(tmp_path / "a.png").numbers, values)


@pytest.mark.parametrize("palette", [None, parsed("house 255 255 255\nrest 0 0 0\n")])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_transparent_pixel_is_no_class(tmp_path: Path, mode: str, palette: Palette | None) -> None:
    image = Image.new(mode, (5, 4), 0 if mode == "LA" else (0, 0, 0, 0))
    image.putalpha(Image.fromarray(np.where(np.eye(4, 5), 254, 255).astype(np.uint8)))
    image.save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png has 4 pixels that are transparent or partly so, which is no class"):
        read_stored_mask(tmp_path / "a.png", palette)


def test_a_colour_that_a_file_marks_as_transparent(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), RED).save(tmp_path / "a.png", transparency=RED)
    with pytest.raises(DataError, match="has 6 pixels that are transparent"):
        read_stored_mask(tmp_path / "a.png", parsed("house 255 0 0\nrest 0 0 0\n"))


def test_sixteen_bits_are_no_colours(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 3), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="has values of type uint16, but the colours of its classes have 8 bits"):
        read_stored_mask(tmp_path / "a.png", parsed(LISTED))


def test_class_numbers_where_colours_are_listed_are_told_so(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    (root / "classes.txt").write_text("ground 0 0 0\nwater 0 0 255\n")
    message = str(inspect_dataset(root).problems[0])
    assert "has 2 colours that no class has: 1 1 1 (384 pixels), 255 255 255 (96 pixels); list it with" in message
    assert message.endswith("; where masks hold class numbers, name the classes in classes.txt without colours")
