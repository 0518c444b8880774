import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemlp.data.datasets import SplitSamples
from cyclemlp.data.formats.class_lists import class_list
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.held_out import HoldOut
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.problems import DataRequest, Findings
from cyclemlp.errors import ConfigError, DataError

WriteDataset = Callable[..., Path]


def refusal(root: Path) -> str:
    """The one line that says why the data set is refused."""
    with pytest.raises(DataError) as error:
        find_dataset(root, MaskDataset)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pairs_are_found_by_name(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    (root / "images/train/a.png").rename(root / "images/train/a.PNG")
    dataset = find_dataset(root, MaskDataset)
    assert dataset.classes == ("ground", "water")
    assert list(dataset.splits) == ["train", "val"]
    assert dataset.splits["train"].images == (root / "images/train/a.PNG", root / "images/train/b.png")
    assert dataset.splits["train"].masks == (root / "masks/train/a.png", root / "masks/train/b.png")


def test_further_splits_with_masks_are_kept(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    for kind in ("images", "masks"):
        shutil.copytree(root / kind / "val", root / kind / "test")
    (root / "images/unlabelled").mkdir()
    assert list(find_dataset(root, MaskDataset).splits) == ["train", "val", "test"]


def test_classes_are_counted_where_no_file_names_them(write_dataset: WriteDataset) -> None:
    root = write_dataset(classes=None)
    Image.new("L", (48, 32), 3).save(root / "masks/val/c.png")
    assert find_dataset(root, MaskDataset).classes == ("class0", "class1", "class2", "class3")


@pytest.mark.parametrize("classes", [None, ("sky", "cloud")])
def test_black_and_white_masks_are_two_classes(
    write_dataset: WriteDataset, classes: tuple[str, str] | None, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_dataset(classes=classes)
    for path in root.glob("masks/*/*.png"):
        Image.fromarray(np.where(np.eye(32, 48), 255, 0).astype(np.uint8)).save(path)
    with caplog.at_level("INFO"):
        dataset = find_dataset(root, MaskDataset)
    names = ("sky", "cloud") if classes else ("background", "object")
    assert dataset.classes == names
    assert f"masks hold 0 and 255 alone: 0 is class {names[0]}, 255 is class {names[1]}" in caplog.text
    np.testing.assert_array_equal(dataset.splits["val"].target(0), np.eye(32, 48))
    report = inspect_dataset(root)
    assert report.splits["val"].of_class == {names[0]: 32 * 48 - 32, names[1]: 32}
    assert f"hold 0 and 255 alone, which are the classes {names[0]} and {names[1]}" in str(report.notes[0])


def test_255_is_ignored_where_masks_hold_classes(write_dataset: WriteDataset) -> None:
    root = write_dataset(classes=None)
    Image.fromarray(np.where(np.eye(32, 48), 255, 0).astype(np.uint8)).save(root / "masks/val/c.png")
    dataset = find_dataset(root, MaskDataset)
    assert dataset.splits["val"].target(0).max() == 255


def flat(root: Path, beside: bool = False) -> Path:
    """Images and masks without splits, as a stranger has them."""
    folders = (root, root) if beside else (root / "images", root / "masks")
    for number in range(10):
        for folder, name in zip(folders, (f"{number}.png", f"{number}_mask.png"), strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((np.eye(8, 9) * 255).astype(np.uint8)).save(folder / name)
    return root


@pytest.mark.parametrize("beside", [False, True])
def test_a_validation_split_is_made_on_request(tmp_path: Path, beside: bool, caplog: pytest.LogCaptureFixture) -> None:
    root = flat(tmp_path / "d", beside)
    assert "has no validation split; give --val-share 0.2" in refusal(root)
    with caplog.at_level("INFO"):
        splits = find_dataset(root, MaskDataset, DataRequest(hold_out=HoldOut(0.2))).splits
    assert (len(splits["train"].images), len(splits["val"].images)) == (8, 2)
    assert "--val-share 0.2: 8 images train and 2 validate, chosen by a hash of their names and seed 0" in caplog.text
    again = find_dataset(root, MaskDataset, DataRequest(hold_out=HoldOut(0.2))).splits
    assert again == splits
    others = {
        find_dataset(root, MaskDataset, DataRequest(hold_out=HoldOut(0.2, seed))).splits["val"] for seed in (1, 2)
    }
    assert others != {splits["val"]}
    assert splits["val"].masks == tuple(
        path.with_name(f"{path.stem}_mask.png") if beside else root / f"masks/{path.stem}_mask.png"
        for path in splits["val"].images
    )
    report = inspect_dataset(root, DataRequest(hold_out=HoldOut(0.2)))
    assert report.splits["val"].images == 2
    assert not report.problems


@pytest.mark.parametrize("place", ["val.txt", "splits/test.txt"])
def test_lists_of_names_that_are_not_read_are_named(tmp_path: Path, place: str) -> None:
    path = flat(tmp_path / "d") / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("1\n2\n")
    fix = f"write {path.name} as a CSV with the columns image and mask"
    assert f"has no validation split; {fix}, or give --val-share 0.2" in refusal(tmp_path / "d")
    notes = "\n".join(map(str, inspect_dataset(tmp_path / "d", DataRequest(hold_out=HoldOut(0.2))).notes))
    assert (
        f"{path} is not read, so that --val-share chooses among all images, those of a test split too; {fix}" in notes
    )


def test_a_validation_split_is_not_made_twice(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    with pytest.raises(DataError, match="has a validation split already: leave --val-share out"):
        find_dataset(root, MaskDataset, DataRequest(hold_out=HoldOut(0.2)))
    for kind in ("images", "masks"):
        shutil.rmtree(root / kind / "val")
    assert find_dataset(root, MaskDataset, DataRequest(hold_out=HoldOut(0.5))).splits["val"].images
    with pytest.raises(ConfigError, match=r"--val-share 1 is not allowed: give a share above 0 and up to 0\.9"):
        HoldOut(1.0)


def test_missing_folder_names_the_layout(tmp_path: Path) -> None:
    message = refusal(tmp_path / "none")
    assert "none is missing; give a folder with images/{train,val} with masks/{train,val}" in message
    (tmp_path / "photos").mkdir()
    assert "is not a data set with masks; expected images/{train,val}" in refusal(tmp_path)


def test_missing_validation_says_how_to_make_it(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    for kind in ("images", "masks"):
        (root / kind / "val" / "c.png").unlink()
        (root / kind / "val").rmdir()
    message = refusal(root)
    assert (
        f"{root}/images/val is missing; give --val-share 0.2 to validate on a fifth of the training images" in message
    )
    assert message.endswith(f"(and 1 more: cyclemlp data {root})")


def test_empty_split_says_so(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    for path in root.glob("*/train/*"):
        path.unlink()
    assert "images/train has no images; put .jpg or .png files there" in refusal(root)


def test_image_without_mask_and_mask_without_image(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    (root / "masks/train/b.png").rename(root / "masks/train/other.png")
    message = refusal(root)
    assert f"{root}/images/train/b.png has no mask; add {root}/masks/train/b.png or remove the image" in message
    (root / "images/train/b.png").unlink()
    message = refusal(root)
    assert f"{root}/masks/train/other.png has no image; add the image to {root}/images/train" in message


def test_two_images_of_one_name(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    Image.new("RGB", (48, 32)).save(root / "images/train/a.jpg")
    assert "a.jpg shares its name with another image; rename one of them" in refusal(root)


def test_mask_that_is_not_a_png(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    with Image.open(root / "masks/train/a.png") as mask:
        mask.save(root / "masks/train/a.jpg")
    (root / "masks/train/a.png").unlink()
    assert "a.jpg is a mask but not a PNG; save it as PNG, which keeps the numbers" in refusal(root)


def test_mask_of_another_size(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    Image.new("L", (48, 31)).save(root / "masks/train/a.png")
    expected = "a.png is 48x31 (width x height), its image 48x32; make the mask the size of its image"
    assert expected in refusal(root)


def test_unreadable_header(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    (root / "images/val/c.png").write_bytes(b"")
    assert refusal(root) == f"{root}/images/val/c.png is empty (0 bytes); replace or remove it"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\na\n", "has 'a' more than once; give each class a name of its own"),
        (b"a\n\nb\n", "has an empty line between classes; remove it or name the class"),
        (b"a\n", "names 1 classes; write 2 to 255 names, one per line"),
        (b"", "names 0 classes; write 2 to 255 names, one per line"),
        ("\n".join(map(str, range(256))).encode(), "names 256 classes; write 2 to 255 names"),
        (b"\xff\xfe\x00", "is not UTF-8 text; save it as UTF-8, one class per line"),
    ],
)
def test_unusable_class_names(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "classes.txt").write_bytes(content)
    findings = Findings()
    assert class_list(tmp_path, findings).names == ()
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path))}/classes.txt {re.escape(message)}"):
        findings.check(tmp_path)


def test_class_names_with_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfsea\r\nland \r\n\r\n")
    assert class_list(tmp_path, Findings()).names == ("sea", "land")


@pytest.mark.parametrize(
    "lines", ["1: wall|2: floor", "0 wall|2: floor", "1\twall|0\tfloor", "1 wall|0 floor", "1=a|2=b|3=c"]
)
def test_numbers_of_classes_that_are_not_those_of_their_lines(tmp_path: Path, lines: str) -> None:
    (tmp_path / "classes.txt").write_text(lines.replace("|", "\n"))
    findings = Findings()
    assert class_list(tmp_path, findings).names == ()
    assert "classes.txt numbers its classes " in str(findings.problems[0])
    assert ", but the first line is class 0, the second class 1, ...; write the names alone" in str(
        findings.problems[0]
    )


@pytest.mark.parametrize(
    "lines", ["0: wall|1: floor", "1 cent|2 cent|5 cent", "0,5 l|1,5 l", "1990s|1980s", "wall|1: floor"]
)
def test_numbers_that_may_be_a_part_of_the_name(tmp_path: Path, lines: str) -> None:
    (tmp_path / "classes.txt").write_text(lines.replace("|", "\n"))
    findings = Findings()
    assert class_list(tmp_path, findings).names == tuple(lines.split("|"))
    assert not findings.problems


def test_samples_are_images_with_masks(write_dataset: WriteDataset) -> None:
    split = find_dataset(write_dataset(), MaskDataset).splits["train"]
    samples = SplitSamples(replace(split, num_classes=2), lambda image, mask: (image, mask))
    image, mask = samples[1]
    assert len(samples) == 2
    assert isinstance(image, np.ndarray)
    assert isinstance(mask, np.ndarray)
    assert (image.shape, image.dtype.name) == ((32, 48, 3), "uint8")
    assert (mask.shape, mask.dtype.name) == ((32, 48), "uint8")
    assert np.unique(mask).tolist() == [0, 1, 255]
    halved = SplitSamples(split, lambda image, mask: (image[::2], mask[::2]))[0]
    assert [part.shape for part in halved] == [(16, 48, 3), (16, 48)]


def test_sample_with_value_outside_the_classes(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    Image.fromarray(np.full((32, 48), 7, np.uint8)).save(root / "masks/train/b.png")
    split = replace(find_dataset(root, MaskDataset).splits["train"], num_classes=2)
    split.read(0)
    expected = r"b.png holds the value 7, outside the 2 classes \(0 to 1, and 255 for ignore\); name the class"
    with pytest.raises(DataError, match=expected):
        split.read(1)


def test_sample_whose_size_changed_after_the_check(write_dataset: WriteDataset) -> None:
    root = write_dataset()
    split = find_dataset(root, MaskDataset).splits["train"]
    Image.new("L", (10, 20)).save(root / "masks/train/a.png")
    with pytest.raises(DataError, match=r"a.png is 10x20 \(width x height\), its image 48x32; make the mask"):
        split.read(0)


def write_ade20k(root: Path) -> Path:
    for folder in ("training", "validation"):
        mask = np.array([[0, 1], [2, 3]], np.uint8).repeat(8, 0).repeat(8, 1)
        for kind, pixels, name in (("images", mask, "a.jpg"), ("annotations", mask, "a.png")):
            (root / kind / folder).mkdir(parents=True)
            Image.fromarray(pixels).save(root / kind / folder / name)
    rows = [
        "Idx\tRatio\tTrain\tVal\tName",
        *(f"{i}\t0.1\t1\t1\t{n}\t\t" for i, n in enumerate(("wall", "sky", "sea, water"))),
    ]
    (root / "objectInfo150.txt").write_text("\n".join(row.rstrip() + " " for row in rows), encoding="utf-8")
    return root


def test_the_archive_of_ade20k_is_read_as_it_is(tmp_path: Path) -> None:
    dataset = find_dataset(write_ade20k(tmp_path), MaskDataset)
    assert dataset.classes == ("wall", "sky", "sea, water")
    assert list(dataset.splits) == ["train", "val"]
    assert dataset.splits["val"].target(0)[::8, ::8].tolist() == [[255, 0], [1, 2]]
    report = inspect_dataset(tmp_path)
    assert report.problems == ()
    assert dict(report.splits["val"].counts()) == {"wall": 64, "sky": 64, "sea, water": 64, "(ignored)": 64}
