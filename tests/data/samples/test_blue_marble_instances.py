import errno
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.images import read_image
from cyclemlp.data.objects import DetectionDataset, masks_of
from cyclemlp.data.samples import blue_marble_instances
from cyclemlp.data.samples.blue_marble import is_held_out, read_earth_mask
from cyclemlp.data.samples.blue_marble_instances import (
    EDGE,
    MIN_SIZE,
    corner_of,
    find_components,
    objects_in,
    prepare_blue_marble_instances,
)
from cyclemlp.errors import MissingExtraError
from cyclemlp.tasks.detection.config import DetectionConfig
from cyclemlp.tasks.detection.defaults import with_defaults

OCEAN, LAND, LAKE = 0, 1, 2
EVERYWHERE = np.s_[0:12, 0:20]


def tiny_map() -> np.ndarray:
    """12 rows, 20 columns: an island with a lake, an island over the date line, mainland, islets."""
    mask = np.zeros((12, 20), np.uint8)
    mask[1:6, 2:8] = LAND  # an island of 30 pixels around
    mask[2:5, 3:7] = LAKE  # a lake of 12
    mask[8:12, :2] = LAND
    mask[7:11, 18:] = LAND  # with the one above an island of 16, a piece in each half
    mask[1:6, 11:17] = LAND  # mainland, where 20 pixels are the most
    mask[8, 5] = LAND  # an islet
    mask[9, 6] = LAND  # that touches another at a corner
    return mask


def test_components_of_a_tiny_map() -> None:
    found = find_components(tiny_map(), max_area=20)
    assert Counter(found.labels[found.areas > 0].tolist()) == {0: 5, 1: 1}  # number 0 and the mainland among them
    assert len(np.unique(found.numbers)) == 1 + 3 + 1
    assert (found.numbers[1:6, 11:17] == 0).all()
    assert found.numbers[8, 5] == found.numbers[9, 6] > 0
    assert found.numbers[8, 0] == found.numbers[7, 19] > 0
    lake = found.numbers[3, 4]
    assert (found.labels[lake], found.areas[lake]) == (1, 12)


def test_objects_have_the_boxes_and_areas_of_their_masks() -> None:
    record = objects_in(find_components(tiny_map(), max_area=20), EVERYWHERE, 7, MIN_SIZE["train"])
    assert (record.image_id, record.size) == (7, (12, 20))
    masks = masks_of(record)
    for box, area, mask in zip(record.boxes_xyxy, record.areas, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert area == mask.sum()
    visible = [masks[i] for i in np.flatnonzero(~record.crowd)]
    expected = (tiny_map() == LAND) & (np.arange(20) < 10) & (np.arange(12) < 7)[:, None]
    assert any((mask == expected).all() for mask in visible)


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        (np.s_[0:7, 0:10], [0, 1]),  # island and lake, whole
        (np.s_[0:7, 5:10], []),  # the lesser halves of both
        (np.s_[0:7, 2:7], [0, 1]),  # most of the island, the whole lake
        (np.s_[7:12, 3:9], []),  # two pixels only
        (np.s_[7:12, 16:20], []),  # half of the island over the date line, but too narrow
    ],
)
def test_what_is_cut_or_small_is_ignored(place: tuple[slice, slice], kept: list[int]) -> None:
    record = objects_in(find_components(tiny_map(), max_area=30), place, 1, MIN_SIZE["train"])
    assert record.labels[~record.crowd].tolist() == kept
    assert len(record.labels)  # ignored ones among them


def test_smaller_objects_are_learnt_than_scored() -> None:
    islet = np.zeros((20, 20), np.uint8)
    islet[5:9, 5:10] = LAND
    components = find_components(islet)
    ignored = {
        split: objects_in(components, EVERYWHERE, 1, minimum).crowd.tolist() for split, minimum in MIN_SIZE.items()
    }
    assert ignored == {"train": [False], "val": [True]}


def test_nothing_in_the_open_ocean() -> None:
    record = objects_in(find_components(tiny_map()), np.s_[0:1, 0:20], 1, MIN_SIZE["train"])
    assert record.boxes_xyxy.shape == (0, 4)
    assert not len(record.labels)


def wide_map() -> np.ndarray:
    """Two rows of tiles: the columns of the first two are held out, those of the last two are not."""
    mask = np.zeros((2 * EDGE, 4 * EDGE), np.uint8)
    for left in range(0, 4 * EDGE, EDGE):
        mask[20:40, left + 30 : left + 60] = LAND
        mask[25:35, left + 35 : left + 45] = LAKE
    mask[EDGE + 5, 700] = LAND  # all that the lower training tiles have
    return mask


@pytest.fixture
def small_earth(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    mask = wide_map()
    image = np.random.default_rng(0).integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    monkeypatch.setattr(blue_marble_instances, "read_earth", lambda: image)
    monkeypatch.setattr(blue_marble_instances, "read_earth_mask", lambda: mask)
    return image


@pytest.fixture
def sample(small_earth: np.ndarray, tmp_path: Path) -> DetectionDataset:
    return find_dataset(prepare_blue_marble_instances(tmp_path), DetectionDataset)


def test_an_ordinary_data_set_in_cocos_form(sample: DetectionDataset) -> None:
    assert sample.classes == ("island", "lake")
    assert sample.has_masks
    assert {name: len(split.images) for name, split in sample.splits.items()} == {"train": 2, "val": 4}
    for split in sample.splits.values():
        kept = [record.select(~record.crowd) for record in split.records]
        assert Counter(label for record in kept for label in record.labels.tolist()) == {0: 2, 1: 2}
    source = (sample.root / "SOURCE.txt").read_text(encoding="utf-8")
    assert "GSHHG" in source
    assert json.loads((sample.root / "val.json").read_text(encoding="utf-8"))["info"] == {"description": source}
    assert [path.name for path in sample.root.parent.iterdir()] == [sample.root.name]  # nothing temporary is left


def test_held_out_columns_are_never_trained_on(sample: DetectionDataset, small_earth: np.ndarray) -> None:
    for name, split in sample.splits.items():
        for path in split.images:
            left, top = corner_of(path)
            assert {is_held_out(column) for column in range(left, left + EDGE)} == {name == "val"}
            np.testing.assert_array_equal(read_image(path), small_earth[top : top + EDGE, left : left + EDGE])


def test_a_second_call_reads_nothing(sample: DetectionDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blue_marble_instances, "read_earth", pytest.fail)
    assert prepare_blue_marble_instances(sample.root.parent) == sample.root


@pytest.mark.usefixtures("small_earth")
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(self: Image.Image, path: Path, **_: int) -> None:
        path.touch()
        if len(list(path.parent.iterdir())) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match="No space left"):
        prepare_blue_marble_instances(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtraError, match=r"scipy, which is not installed: .*cyclemlp\[sample\]"):
        find_components(tiny_map())


def test_image_size_and_anchors_do_not_follow_ignored_objects(sample: DetectionDataset) -> None:
    config = with_defaults(DetectionConfig(data=sample.root), sample.splits["val"])
    assert (config.input_scale, config.detector.anchor_size) == (2.0, 3.0)  # lakes of 10 pixels, not islets of 1


def test_places_are_what_they_are() -> None:
    found = find_components(read_earth_mask())

    def at(latitude: float, longitude: float) -> str:
        number = found.numbers[round((90 - latitude) * 15), round((longitude + 180) * 15)]
        return blue_marble_instances.CLASSES[found.labels[number]] if number else "none"

    assert at(65, -18) == at(37.5, 14.2) == at(71, -179.5) == at(71, 179.5) == "island"  # Iceland, Sicily, Wrangel
    assert at(-1, 33) == at(47.6, -87) == at(53.5, 108.2) == "lake"  # Victoria, Superior, Baikal
    assert at(72, -40) == at(-25, 135) == at(23, 10) == at(66, -175) == at(0, -30) == "none"  # Greenland to Chukotka
