"""Images and masks that a CSV or a YAML pairs: as it says, or refused by name."""

import re
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemlp.data.folders import outside_allowed
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.held_out import HoldOut
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.problems import DataRequest
from cyclemlp.errors import DataError

_SEEDS = count()


def noise(shape: tuple[int, ...]) -> np.ndarray:
    """Other pixels each time, so that no two images are the same."""
    return np.random.default_rng(next(_SEEDS)).integers(0, 256, shape, np.uint8)


def save(path: Path, value: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noise((6, 8, 3)) if value is None else (np.eye(6, 8) * value).astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files whose names do not pair them."""
    for number in range(4):
        save(tmp_path / f"d/photos/{number}.jpg")
        save(tmp_path / f"d/drawn/m{9 - number}.png", 1)
    return tmp_path / "d"


ROWS = [
    (f"photos/{number}.jpg", f"drawn/m{9 - number}.png", ("train", "train", "val", "test")[number])
    for number in range(4)
]


def table(titles: str = "image,mask,split", delimiter: str = ",", rows: list[tuple[str, ...]] | None = None) -> str:
    return "\n".join([titles, *(delimiter.join(row) for row in (ROWS if rows is None else rows)), ""])


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as error:
        find_dataset(root, MaskDataset)
    return str(error.value)


YAML = "".join(f"- {{image: {image}, mask: {mask}, split: {split}}}\n" for image, mask, split in ROWS)
BY_SPLIT = (
    "train:\n- {img: photos/0.jpg, label: drawn/m9.png}\n- {img: photos/1.jpg, label: drawn/m8.png}\n"
    "valid:\n- {img: photos/2.jpg, label: drawn/m7.png}\ntest:\n- {img: photos/3.jpg, label: drawn/m6.png}\n"
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pairs.csv", table()),
        ("any name.csv", table("Filename;GT;Subset", ";")),
        ("list.tsv", table("img_path\tlabel path\tset", "\t")),
        ("pairs.csv", "\ufeff" + table("Images,Masks,Split").replace("\n", "\r\n")),
        ("pairs.yaml", YAML),
        ("p.yml", "pairs:\n" + YAML),
        ("data.yaml", BY_SPLIT),
        ("windows.csv", table().replace("/", "\\")),
    ],
)
def test_pairs_are_those_of_the_list(root: Path, name: str, text: str) -> None:
    (root / name).write_text(text, encoding="utf-8", newline="")
    report = inspect_dataset(root)
    assert (report.format, report.problems, report.notes) == ("masks", (), ())
    assert {each: split.images for each, split in report.splits.items()} == {"train": 2, "val": 1, "test": 1}
    val = find_dataset(root, MaskDataset).splits["val"]
    assert (val.images, val.masks) == ((root / "photos/2.jpg",), (root / "drawn/m7.png",))


@pytest.mark.parametrize("name", ["pairs.yaml", "list.tsv"])
def test_a_list_next_to_its_images_is_no_image_that_is_skipped(tmp_path: Path, name: str) -> None:
    pairs: list[tuple[str, ...]] = [(f"{split}.png", f"{split}_mask.png", split) for split in ("train", "val")]
    for image, mask, _ in pairs:
        save(tmp_path / image)
        save(tmp_path / mask, 1)
    yaml = "".join(f"- {{image: {image}, mask: {mask}, split: {split}}}\n" for image, mask, split in pairs)
    text = table("image\tmask\tsplit", "\t", rows=pairs) if name.endswith("tsv") else yaml
    (tmp_path / name).write_text(text, encoding="utf-8")
    report = inspect_dataset(tmp_path)
    assert (report.problems, report.notes) == ((), ())


def test_a_list_for_each_split(root: Path) -> None:
    for split, rows in (("train", ROWS[:3]), ("val", ROWS[3:])):
        (root / f"{split}.csv").write_text(table("image,mask", rows=[row[:2] for row in rows]))
    splits = find_dataset(root, MaskDataset).splits
    assert [len(splits[name].images) for name in ("train", "val")] == [3, 1]


@pytest.mark.parametrize("slash", ["/", "\\"])
def test_splits_in_the_names_of_the_images(tmp_path: Path, slash: str) -> None:
    for split in ("training", "valid"):
        save(tmp_path / split / "a.png")
        save(tmp_path / "m" / split / "b.png", 1)
    rows = [(f"{split}/a.png", f"m/{split}/b.png") for split in ("training", "valid")]
    (tmp_path / "pairs.csv").write_text(table("image,mask", rows=list(rows)).replace("/", slash))
    splits = find_dataset(tmp_path, MaskDataset).splits
    assert splits["val"].images == (tmp_path / "valid/a.png",)
    save(tmp_path / "more/a.png")
    (tmp_path / "pairs.csv").write_text(
        table("image,mask", rows=[*rows, ("more/a.png", rows[0][1])]).replace("/", slash)
    )
    message = "has no split in line 4, others have by the folders of their images; write train, val or test in a column"
    assert message in refusal(tmp_path)


def test_without_splits_some_are_held_out_on_request(root: Path) -> None:
    (root / "pairs.csv").write_text(table("image,mask", rows=[row[:2] for row in ROWS]))
    assert "has no validation split; give --val-share 0.2" in refusal(root)
    splits = find_dataset(root, MaskDataset, DataRequest(hold_out=HoldOut(0.25))).splits
    assert [len(splits[name].images) for name in ("train", "val")] == [3, 1]


def test_names_alone_are_looked_for_in_images_and_masks(tmp_path: Path) -> None:
    rows = []
    for number, split in enumerate(("train", "val")):
        save(tmp_path / f"images/{number}.png")
        save(tmp_path / f"masks/{number}x.png", 1)
        rows.append((f"{number}.png", f"{number}x.png", split))
    (tmp_path / "pairs.csv").write_text(table(rows=list(rows)))
    assert find_dataset(tmp_path, MaskDataset).splits["val"].masks == (tmp_path / "masks/1x.png",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, (ROWS[0][0], ROWS[1][1], "train")], "lists photos/0.jpg in line 2 and line 6; keep one: an image has"),
        ([*ROWS, (ROWS[0][0], ROWS[0][1], "val")], "lists photos/0.jpg in line 2 and line 6; keep one: an image has"),
        ([*ROWS, ("photos/7.jpg", ROWS[0][1], "val")], "names the image 'photos/7.jpg' in line 6, which is missing"),
        ([*ROWS, (ROWS[0][0], "drawn/7.png", "val")], "names the mask 'drawn/7.png' in line 6, which is missing"),
        ([*ROWS[:3], (ROWS[3][0], "", "val")], "has no mask in line 5; name its file there, or remove the row"),
        ([*ROWS[:3], (ROWS[3][0], ROWS[3][1], "fold1")], "has the split 'fold1' in line 5; write train, val or test"),
        ([*ROWS[:3], (ROWS[3][0], ROWS[3][1], "")], "has no split in line 5, others have; write train, val or test"),
        ([*ROWS[:3], (ROWS[3][1], ROWS[3][1], "val")], "names 'drawn/m6.png' as both image and mask in line 5"),
        (ROWS[2:], "lists no pairs of the train split, only test, val; add some to its list"),
    ],
)
def test_lists_that_cannot_be_meant(root: Path, rows: list[tuple[str, ...]], message: str) -> None:
    (root / "pairs.csv").write_text(table(rows=rows))
    assert message in refusal(root)


def test_a_mask_of_several_images_is_noted(root: Path) -> None:
    (root / "pairs.csv").write_text(table(rows=[*ROWS[:3], (ROWS[3][0], ROWS[0][1], "test")]))
    report = inspect_dataset(root)
    assert report.problems == ()
    assert f"{root / ROWS[0][1]} is the mask of 2 images; correct the list, unless" in "\n".join(map(str, report.notes))


def test_a_mask_of_a_blurring_kind_in_a_list(root: Path) -> None:
    save(root / "drawn/m.jpg", 1)
    (root / "pairs.csv").write_text(table(rows=[*ROWS[1:], (ROWS[0][0], "drawn/m.jpg", "train")]))
    assert "m.jpg is a mask but not a PNG; save it as PNG" in refusal(root)


def test_files_outside_of_the_folder_are_read_on_request_alone(root: Path, tmp_path: Path) -> None:
    save(tmp_path / "elsewhere.png", 1)
    (root / "pairs.csv").write_text(table(rows=[*ROWS[1:], (ROWS[0][0], "../elsewhere.png", "train")]))
    assert "names '../elsewhere.png', which lies outside of" in refusal(root)
    with outside_allowed(True):
        assert len(find_dataset(root, MaskDataset).splits["train"].images) == 2


def test_several_lists(root: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (root / name).write_text(table())
    assert "has several lists of pairs (a.csv, b.csv); keep one, or call them train.csv and val.csv" in refusal(root)


@pytest.mark.parametrize("entry", ["{picture: a.png, drawn: m.png, split: train}", "photos/0.jpg"])
def test_an_entry_that_names_no_pair_is_no_silent_one(root: Path, entry: str) -> None:
    (root / "pairs.yaml").write_text(f"pairs:\n{YAML}- {entry}\n")
    assert re.search(r"has no (image|split) in entry 5", refusal(root))


@pytest.mark.parametrize("text", ["filename,label\nphotos/0.jpg,cat\n", "image,mask\na.jpg,1 3 10 5\n", "\x00,\n", ""])
def test_other_tables_pair_nothing(root: Path, text: str) -> None:
    (root / "a.csv").write_text(text)
    with pytest.raises(DataError, match=re.escape("is not a data set with masks")):
        find_dataset(root, MaskDataset)


def nested(root: Path, split: str = "") -> None:
    for place in ("north/a", "south/a", "south/day 2/a"):
        save(root / "images" / split / f"{place}.jpg")
        save(root / "masks" / split / f"{place}_mask.png", 1)


def test_nested_folders_have_the_same_places(tmp_path: Path) -> None:
    for split in ("train", "val"):
        nested(tmp_path, split)
    report = inspect_dataset(tmp_path)
    assert (report.problems, report.notes) == ((), ())
    train = find_dataset(tmp_path, MaskDataset).splits["train"]
    assert [path.relative_to(tmp_path).as_posix() for path in train.masks] == [
        "masks/train/north/a_mask.png",
        "masks/train/south/a_mask.png",
        "masks/train/south/day 2/a_mask.png",
    ]
    (tmp_path / "masks/val/south/a_mask.png").unlink()
    assert "images/val/south/a.jpg has no mask; add" in refusal(tmp_path)


def test_nested_folders_without_splits(tmp_path: Path) -> None:
    nested(tmp_path)
    assert "has no validation split; give --val-share 0.2" in refusal(tmp_path)
    splits = find_dataset(tmp_path, MaskDataset, DataRequest(hold_out=HoldOut(0.3))).splits
    assert [len(splits[name].images) for name in ("train", "val")] == [2, 1]


DESCRIBED = {
    "below": "train: images/train\nval: images/val\nmasks: masks\n",
    "relative": "path: .\ntrain: ../images/train\nval: ../images/val\nmasks_dir: masks\n".replace("../", ""),
    "own keys": "train: images/train\nvalid: images/val\ntrain_masks: masks/train\nval_masks: masks/val\n",
    "mapping": "train: images/train\nval: images/val\nmasks: {train: masks/train, val: masks/val}\n",
    "of another machine": "path: /home/else/data\ntrain: images/train\nval: images/val\nmasks: masks\n",
}


@pytest.mark.parametrize("text", DESCRIBED.values(), ids=DESCRIBED)
def test_folders_that_data_yaml_describes(tmp_path: Path, text: str) -> None:
    for split in ("train", "val"):
        save(tmp_path / f"images/{split}/a.jpg")
        save(tmp_path / f"masks/{split}/a_mask.png", 1)
    (tmp_path / "data.yaml").write_text(text + "nc: 2\nnames: {0: ground, 1: water}\n")
    report = inspect_dataset(tmp_path)
    assert (report.problems, report.notes, report.dataset.classes) == ((), (), ("ground", "water"))
    assert find_dataset(tmp_path, MaskDataset).splits["val"].masks == (tmp_path / "masks/val/a_mask.png",)
    (tmp_path / "classes.txt").write_text("water\nground\n")
    assert "data.yaml names other classes than the list of classes next to it; make them equal" in refusal(tmp_path)


def test_names_of_boxes_are_no_names_of_masks(tmp_path: Path) -> None:
    """Boxes have no background, so that a number means another class."""
    for split in ("train", "val"):
        save(tmp_path / f"images/{split}/a.jpg")
        save(tmp_path / f"masks/{split}/a.png", 1)
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [water, ground]\n")
    assert find_dataset(tmp_path, MaskDataset).classes == ("class0", "class1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "train: images/train\nval: images/none\nmasks: masks\n",
            "names the folder 'images/none' for val, which is mis",
        ),
        ("train: images/train\nmasks: masks\n", "has no validation split; give --val-share 0.2"),
        ("val: images/train\nmasks: masks\n", "names no train images; add a line train: FOLDER"),
        ("train: [images/train]\nval: images/train\nmasks: masks\n", "has ['images/train'] for the images of train"),
        ("train: images/train\nmasks: masks\nnames: [a, b]\ncolors: [[0, 0, 1]]\n", "has 2 names, but other colours"),
        ("train: images/train\nmasks: masks\nnames: [a, b]\ncolors: [x, y]\n", "has colours that are none"),
    ],
)
def test_descriptions_that_cannot_be_meant(tmp_path: Path, text: str, message: str) -> None:
    save(tmp_path / "images/train/a.jpg")
    save(tmp_path / "masks/train/a.png", 1)
    (tmp_path / "data.yaml").write_text(text)
    assert message in "\n".join(map(str, inspect_dataset(tmp_path).problems))


def test_colours_in_data_yaml(tmp_path: Path) -> None:
    for split in ("train", "val"):
        save(tmp_path / f"images/{split}/a.jpg")
        save(tmp_path / f"masks/{split}/a.png", 255)
    text = "train: images/train\nval: images/val\nmasks: masks\nnames: [white, black]\ncolors: ['#ffffff', [0, 0, 0]]\n"
    (tmp_path / "data.yaml").write_text(text)
    np.testing.assert_array_equal(find_dataset(tmp_path, MaskDataset).splits["val"].target(0), 1 - np.eye(6, 8))
