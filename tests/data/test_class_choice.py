import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import command, refused
from PIL import Image

from cyclemlp.data.checks import check_files
from cyclemlp.data.chosen_classes import in_words, with_classes
from cyclemlp.data.class_choice import ClassChoice
from cyclemlp.data.datasets import ClassifiedDataset, SplitDataset
from cyclemlp.data.fingerprint import labels_digest
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.objects import ANY_CLASS, DetectionDataset
from cyclemlp.errors import ConfigError, DataError

NAMES = ("background", "car", "truck", "tree")


def choice(**options: tuple[str, ...]) -> ClassChoice:
    return ClassChoice(**options)


@pytest.mark.parametrize(
    ("options", "classes", "fates"),
    [
        ({}, NAMES, (0, 1, 2, 3)),
        ({"classes": ("tree", "car")}, ("car", "tree"), ("left out", 0, "left out", 1)),
        ({"ignore_classes": ("truck",)}, ("background", "car", "tree"), (0, 1, "ignored", 2)),
        ({"merge": ("vehicle=car,truck",)}, ("background", "vehicle", "tree"), (0, 1, 1, 2)),
        ({"merge": ("car=truck",)}, ("background", "car", "tree"), (0, 1, 1, 2)),
        ({"merge": ("car = car, truck",)}, ("background", "car", "tree"), (0, 1, 1, 2)),
        ({"merge": ("plant=tree",)}, ("background", "car", "truck", "plant"), (0, 1, 2, 3)),
        (
            {"merge": ("vehicle=truck,car",), "classes": ("vehicle",), "ignore_classes": ("tree",)},
            ("vehicle",),
            ("left out", 0, 0, "ignored"),
        ),
    ],
)
def test_what_becomes_of_each_class(options: Any, classes: tuple[str, ...], fates: tuple[object, ...]) -> None:
    table = choice(**options).table(NAMES)
    assert (table.classes, table.of) == (classes, fates)


@pytest.mark.parametrize(
    ("options", "classes", "fates"),
    [
        ({"classes": ("tree", "car")}, ("background", "car", "tree"), (0, 1, 0, 2)),
        ({"classes": ("background", "car")}, ("background", "car"), (0, 1, 0, 0)),
        ({"classes": ("car",), "ignore_classes": ("background",)}, ("other", "car"), ("ignored", 1, 0, 0)),
        ({"classes": ("car",), "ignore_classes": ("tree",)}, ("background", "car"), (0, 1, 0, "ignored")),
        ({"classes": ("car", "truck"), "ignore_classes": ("tree",)}, NAMES[:3], (0, 1, 2, "ignored")),
    ],
)
def test_what_is_left_out_of_masks_is_background(
    options: Any, classes: tuple[str, ...], fates: tuple[object, ...]
) -> None:
    table = choice(**options).table(NAMES).with_background(NAMES)
    assert (table.classes, table.of) == (classes, fates)


def test_masks_without_a_background_get_one() -> None:
    names = ("car", "truck", "tree")
    table = choice(classes=("tree", "truck")).table(names).with_background(names)
    assert (table.classes, table.of) == (("background", "truck", "tree"), (0, 1, 2))
    same = choice(ignore_classes=("tree",)).table(names)
    assert same.with_background(names) == same


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ("truk",)}, "--classes: 'truk' is not a class of the data, which have 4 (background, car, truck"),
        ({"classes": ("truk",)}, "Did you mean 'truck'?"),
        ({"ignore_classes": ("bus",)}, "--ignore-classes: 'bus' is not a class of the data"),
        ({"merge": ("v=car,truk",)}, "--merge: 'truk' is not a class of the data"),
        ({"merge": ("v=car,truck",), "classes": ("car",)}, "--classes: car is a part of v by --merge: give v"),
        (
            {"merge": ("vehicle",)},
            "--merge 'vehicle': give a new name and the classes it stands for: vehicle=car,truck",
        ),
        ({"merge": ("v=car,",)}, "--merge 'v=car,': give a new name"),
        ({"merge": ("=car",)}, "--merge '=car': give a new name"),
        ({"merge": ("v=car", "w=car")}, "--merge names 'car' twice: leave one of them out"),
        ({"merge": ("v=car", "v=tree")}, "--merge names 'v' twice"),
        ({"merge": ("v=car", "car=tree")}, "--merge car=...: car is a part of another merge: give it a new name"),
        ({"classes": ("car", "car")}, "--classes names 'car' twice"),
        ({"classes": ("car",), "ignore_classes": ("car",)}, "both name 'car': leave it out of one of them"),
    ],
)
def test_refusals(options: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        choice(**options).table(NAMES)
    assert message in str(caught.value)


def test_names_are_the_same_text_in_either_unicode_form() -> None:
    assert choice(classes=("k\u00fche",)).table(("ku\u0308he", "tree")).classes == ("ku\u0308he",)


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """Masks of the four classes in columns of 8 pixels, and ignored ones."""
    root = tmp_path / "streets"
    for split in ("train", "val"):
        mask = np.repeat(np.array([0, 1, 2, 3, 255], np.uint8), 8)[None].repeat(32, axis=0)
        for kind, pixels in (("images", np.zeros((32, 40, 3), np.uint8)), ("masks", mask)):
            (root / kind / split).mkdir(parents=True)
            Image.fromarray(pixels).save(root / kind / split / "a.png")
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root


def columns(root: Path, chosen: ClassChoice) -> list[int]:
    dataset = with_classes(find_dataset(root, MaskDataset), chosen)
    numbers = dataset.splits["train"].target(0)
    assert numbers.dtype == np.uint8
    assert np.array_equal(dataset.splits["train"].read(0)[1], numbers)  # what is learnt is what is scored
    return [int(number) for number in numbers[0, ::8]]


def test_masks(streets: Path) -> None:
    assert columns(streets, choice()) == [0, 1, 2, 3, 255]
    assert columns(streets, choice(classes=("tree", "car"))) == [0, 1, 0, 2, 255]
    assert columns(streets, choice(ignore_classes=("car", "background"))) == [255, 255, 0, 1, 255]
    assert columns(streets, choice(merge=("v=car,truck",), ignore_classes=("tree",))) == [0, 1, 1, 255, 255]


def test_masks_with_other_values_are_refused_as_ever(streets: Path) -> None:
    (streets / "classes.txt").write_text("\n".join(NAMES[:3]))
    dataset = with_classes(find_dataset(streets, MaskDataset), choice(ignore_classes=("truck",)))
    with pytest.raises(DataError, match=r"a.png holds the value 3, outside the 3 classes \(0 to 2, and 255"):
        dataset.splits["train"].target(0)
    with pytest.raises(DataError, match=r"a.png holds the value 3, outside the 3 classes"):
        check_files(dataset, ("train", "val"))


def test_the_check_before_training_reads_all_classes(streets: Path) -> None:
    check_files(with_classes(find_dataset(streets, MaskDataset), choice(classes=("car",))), ("train", "val"))


def test_too_few_classes(streets: Path) -> None:
    with pytest.raises(ConfigError, match="leave 1 class: a network needs two to tell apart"):
        with_classes(find_dataset(streets, MaskDataset), choice(ignore_classes=NAMES[1:]))


def test_digests_tell_choices_apart(streets: Path) -> None:
    options: list[Any] = [
        {},
        {"merge": ("car=truck",)},
        {"ignore_classes": ("truck",)},
        {"classes": ("car", "tree")},
    ]
    found = [with_classes(find_dataset(streets, MaskDataset), choice(**each)) for each in options]
    assert len({labels_digest(dataset, ("train", "val")) for dataset in found}) == len(options)


def test_data_counts_the_chosen_classes(streets: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    chosen = ["--classes", "car", "tree", "--ignore-classes", "truck", "--prepare", tmp_path / "out"]
    assert command("data", streets, *chosen, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["classes"] == ["background", "car", "tree"]
    assert report["splits"]["train"]["class_pixels"] == {"background": 256, "car": 256, "tree": 256}
    assert report["splits"]["train"]["ignored_pixels"] == 512
    assert report["read_as"]["chosen"] == ("3 classes are learnt (background, car, tree); pixels of truck are ignored")
    written = find_dataset(tmp_path / "out", MaskDataset)
    assert written.classes == ("background", "car", "tree")
    assert written.splits["val"].target(0)[0, ::8].tolist() == [0, 1, 255, 2, 255]
    assert "'truk' is not a class of the data" in refused(capsys, "data", streets, "--classes", "truk")


@pytest.fixture
def boats(write_coco: Callable[..., Path]) -> Path:
    """An image with a boat, two buoys and a rock, each 8 pixels wide."""
    objects = [
        {"id": number, "image_id": 1, "category_id": category, "bbox": [left, 2, 8, 8], "area": 64, "iscrowd": 0}
        for number, (category, left) in enumerate(((7, 1), (3, 9), (3, 17), (5, 21)), start=1)
    ]
    return write_coco(
        objects, categories=[{"id": 7, "name": "boat"}, {"id": 3, "name": "buoy"}, {"id": 5, "name": "rock"}]
    )


def test_objects(boats: Path) -> None:
    dataset = find_dataset(boats, DetectionDataset)
    order = dataset.classes
    ids = dict(zip(order, dataset.category_ids, strict=True))
    some = with_classes(dataset, choice(classes=("buoy",)))
    assert (some.classes, some.category_ids, some.data_classes) == (("buoy",), (ids["buoy"],), order)
    record = some.splits["train"].records[0]
    assert (record.labels.tolist(), record.crowd.tolist()) == ([0, 0], [False, False])
    assert some.splits["val"].annotations is None
    ignored = with_classes(dataset, choice(ignore_classes=("rock",), merge=("float=boat,buoy",)))
    record = ignored.splits["train"].records[0]
    assert ignored.classes == ("float",)
    assert record.labels.tolist() == [0, 0, 0, ANY_CLASS]
    assert record.crowd.tolist() == [False, False, False, True]
    with pytest.raises(ConfigError, match="leave 0 class: nothing is left to learn"):
        with_classes(dataset, choice(ignore_classes=order))


def test_objects_are_counted(boats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("data", boats, "--classes", "buoy", "--ignore-classes", "rock", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["splits"]["train"]["class_objects"] == {"buoy": 2}
    assert report["splits"]["train"]["ignored_objects"] == 1
    assert report["read_as"]["chosen"] == (
        "1 class is learnt (buoy); 2 objects of boat are background; 2 objects of rock are ignored"
    )


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    root = tmp_path / "animals"
    for split in ("train", "val"):
        for number, name in enumerate(("ant", "bee", "cat", "dog")):
            (root / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (number, len(split), 9)).save(root / split / name / f"{split}.png")
    return root


def test_labels(animals: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = find_dataset(animals, ClassifiedDataset)
    with caplog.at_level(logging.INFO):
        some = with_classes(dataset, choice(classes=("dog", "insect"), merge=("insect=ant,bee",)))
    assert some.classes == ("insect", "dog")
    split = some.splits["train"]
    assert [path.parent.name for path in split.images] == ["ant", "bee", "dog"]
    assert split.labels == (0, 0, 1)
    said = "2 classes are learnt (insect, dog); insect is ant and bee; 2 images of cat are not used"
    assert f"{animals}: {said}" in caplog.text
    others = with_classes(dataset, choice(ignore_classes=("cat", "ant")))
    assert (others.classes, others.splits["val"].labels) == (("bee", "dog"), (0, 1))
    assert in_words(dataset, choice(ignore_classes=("cat",))).endswith("2 images of cat are not used")


def test_images_that_are_not_used_are_not_read(animals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (animals / "train/cat/train.png").write_bytes(b"no image")
    assert command("data", animals) == 2
    assert command("data", animals, "--ignore-classes", "cat") == 0
    assert "chosen: 3 classes are learnt (ant, bee, dog); 2 images of cat are not used" in capsys.readouterr().out
    dataset = find_dataset(animals, ClassifiedDataset)
    check_files(with_classes(dataset, choice(ignore_classes=("cat",))), ("train", "val"))
    with pytest.raises(DataError, match=r"train.png is not an image"):
        check_files(dataset, ("train", "val"))


def test_other_data_sets_have_no_choice(tmp_path: Path) -> None:
    other: SplitDataset[object] = SplitDataset(tmp_path, ("a", "b"), {})
    assert with_classes(other, choice()) is other
    with pytest.raises(ConfigError, match="are not for data of this task: leave them out"):
        with_classes(other, choice(classes=("a",)))


def test_a_new_background_has_a_name_of_its_own() -> None:
    """Names of scores are keys: of two classes of one name one would be lost."""
    choice = ClassChoice(classes=("Background", "tree"), merge=("Background=car,truck",))
    names = ("road", "car", "truck", "tree")
    table = choice.table(names).with_background(names)
    assert table.classes == ("other", "Background", "tree")
    assert table.of == (0, 1, 1, 2)
    full = ("a", "background", "other", "rest", "background 2")
    assert ClassChoice(classes=full[1:]).table(full).with_background(full).classes[0] == "background 3"


def test_the_nearest_name_is_found_in_other_letters() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'WBC'\?"):
        ClassChoice(classes=("wbcs",)).table(("Platelets", "RBC", "WBC"))
