import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from cyclemlp.data.contact_sheet import CELL_WIDTH, choose, contact_sheet
from cyclemlp.data.datasets import ClassifiedDataset, ClassifiedSplit
from cyclemlp.data.drawing import IGNORED, STRAY, colour_list, draw_mask, draw_objects
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.data.objects import Record
from cyclemlp.data.outlines import Polygons, rle_of_mask

BLUE, GREEN = colour_list(2)
BLACK = Image.new("RGB", (60, 40))


def dataset(**counts: dict[str, int]) -> ClassifiedDataset:
    """This many images of each class in each split."""
    classes = tuple(sorted({name for split in counts.values() for name in split}))
    splits = {}
    for name, split in counts.items():
        names = [each for each, count in split.items() for _ in range(count)]
        images = tuple(Path(f"{each}/{i}.png") for each, count in split.items() for i in range(count))
        splits[name] = ClassifiedSplit(images, tuple(map(classes.index, names)))
    return ClassifiedDataset(Path(), classes, splits)


def chosen_paths(given: ClassifiedDataset, count: int) -> list[Path]:
    return [given.splits[split].images[index] for split, index in choose(given, count)]


def record(boxes: list[list[float]], crowd: bool = False, outline: Polygons | None = None) -> Record:
    """Of an image twice as large as BLACK; one class for each object."""
    xyxy = np.array(boxes, np.float32)
    return Record(
        image_id=1,
        size=(80, 120),
        boxes_xyxy=xyxy,
        labels=np.arange(len(boxes)),
        crowd=np.full(len(boxes), crowd),
        areas=(xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1).astype(np.float64),
        segmentations=(outline,) * len(boxes),
    )


def test_images_are_spread_over_splits_and_classes() -> None:
    given = dataset(val={"a": 50}, train={"a": 100, "b": 100, "c": 1})
    assert [split for split, _ in choose(given, 12)] == ["train"] * 9 + ["val"] * 3
    paths = chosen_paths(given, 12)
    assert [path.parent.name for path in paths[:9]] == ["a"] * 4 + ["b"] * 4 + ["c"]
    assert [path.stem for path in paths[:4]] == ["0", "25", "50", "75"]


def test_all_images_are_chosen_if_there_are_few() -> None:
    assert len(choose(dataset(train={"a": 2}, val={"a": 3}), 24)) == 5
    assert len(choose(dataset(train={"a": 1}, val={"a": 30}), 24)) == 24
    assert choose(dataset(train={}, val={}), 24) == []
    many_classes = chosen_paths(dataset(train={f"c{i:02}": 3 for i in range(40)}), 10)
    assert [path.parent.name for path in many_classes] == [f"c{i:02}" for i in range(0, 40, 4)]


def test_masks_are_painted_and_ignored_pixels_left() -> None:
    numbers = np.zeros((80, 120), np.uint8)
    numbers[:, 40:80], numbers[:, 80:] = 255, 7
    drawn = np.asarray(draw_mask(BLACK, numbers, 2)).astype(int)
    assert drawn.shape == (40, 60, 3)
    assert (drawn[:, 21:39] == 0).all()
    for column, colour in ((10, BLUE), (50, STRAY)):
        np.testing.assert_allclose(drawn[20, column], 0.3 * np.array(colour), atol=1)
    assert tuple(drawn[20, 19]) == BLUE  # the border


def test_boxes_have_the_colour_of_their_class() -> None:
    drawn = np.asarray(draw_objects(BLACK, record([[20, 40, 60, 70], [80, 40, 110, 70]]), ["a", "b"]))
    assert tuple(drawn[30, 10]) == BLUE  # at half the size
    assert tuple(drawn[30, 40]) == GREEN
    assert tuple(drawn[30, 20]) == (0, 0, 0)


def test_regions_to_ignore_are_grey() -> None:
    drawn = np.asarray(draw_objects(BLACK, record([[20, 40, 60, 70]], crowd=True), ["a"]))
    assert tuple(drawn[30, 10]) == IGNORED


def test_outlines_are_filled_and_have_an_edge() -> None:
    square = Polygons((np.array([20.0, 20, 100, 20, 100, 60, 20, 60]),))
    drawn = np.asarray(draw_objects(BLACK, record([[20, 20, 100, 60]], outline=square), ["a"])).astype(int)
    assert tuple(drawn[20, 10]) == BLUE
    assert 0 < drawn[20, 30].max() < max(BLUE)
    assert drawn[35, 30].max() == 0


def test_an_outline_far_outside_its_image_is_drawn_in_no_time() -> None:
    """Pillow walks along every edge: without cutting, a digit too much in one number took minutes."""
    far = Polygons((np.array([2.1e10, 2, 20, 2, 20, 60, 2, 60], np.float64),))
    near = Polygons((np.array([600, 2, 20, 2, 20, 60, 2, 60], np.float64),))
    started = time.process_time()
    drawn = [np.asarray(draw_objects(BLACK, record([[2, 2, 60, 60]], outline=each), ("a",))) for each in (far, near)]
    assert time.process_time() - started < 2
    assert (drawn[0] != np.asarray(BLACK)).any(axis=2).mean() > 0.2
    assert (drawn[0] == drawn[1]).mean() > 0.9


def test_a_sheet_of_every_kind(write_dataset: Callable[..., Path], write_coco: Callable[..., Path]) -> None:
    objects = [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [2, 3, 10, 5]}]
    for root in (write_dataset(), write_coco(objects, root=write_dataset().parent / "boats")):
        report = inspect_dataset(root)
        sheet = contact_sheet(report.dataset, 24)
        assert sheet is not None
        count = sum(len(split.images) for split in report.dataset.splits.values())
        assert sheet.width == count * (CELL_WIDTH + 10) + 10
        assert len(sheet.getcolors(2**20) or []) > 3


def test_a_damaged_image_is_a_grey_cell(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    split = ClassifiedSplit((tmp_path / "a.png",), (0,))
    sheet = contact_sheet(ClassifiedDataset(tmp_path, ("a" * 90,), {"train": split}), 24)
    assert sheet is not None
    assert sheet.getpixel((20, 20)) == (225, 225, 225)
    assert contact_sheet(dataset(train={}), 24) is None


def test_an_rle_is_drawn_too() -> None:
    mask = np.zeros((80, 120), np.uint8)
    mask[20:60, 20:100] = 1
    given = record([[20, 20, 100, 60]])
    drawn = np.asarray(draw_objects(BLACK, replace(given, segmentations=(rle_of_mask(mask),)), ["a"]))
    assert tuple(drawn[20, 10]) == BLUE
    assert drawn[35, 30].max() == 0
