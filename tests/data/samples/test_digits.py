"""The sample of handwritten digits: what is labelled is what is drawn, and what is held out is not trained on."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.images import read_image
from cyclemlp.data.objects import DetectionDataset, masks_of
from cyclemlp.data.samples import digits
from cyclemlp.data.samples.blue_marble import BAND, HEIGHT, WIDTH, is_held_out
from cyclemlp.data.samples.digits import CLASSES, EDGE, Digits, compose, prepare_digits, read_digits
from cyclemlp.errors import MissingExtraError


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> DetectionDataset:
    """Held-out columns are black and the others white, below the digits."""
    earth = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for left in range(0, WIDTH, BAND):
        earth[:, left : left + BAND] = 0 if is_held_out(left) else 255
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "read_earth", lambda: earth)
        patch.setattr(digits, "IMAGES", {"train": 6, "val": 4})
        return find_dataset(prepare_digits(tmp_path_factory.mktemp("cache")), DetectionDataset)


def test_an_ordinary_data_set_in_cocos_form(sample: DetectionDataset) -> None:
    assert sample.classes == CLASSES
    assert sample.has_masks
    assert {name: len(split.images) for name, split in sample.splits.items()} == {"train": 6, "val": 4}
    source = (sample.root / "SOURCE.txt").read_text(encoding="utf-8")
    assert "CC BY 4.0" in source
    assert json.loads((sample.root / "val.json").read_text(encoding="utf-8"))["info"] == {"description": source}


def test_held_out_places_are_never_trained_on(sample: DetectionDataset) -> None:
    for name, grey in (("train", 255), ("val", 0)):
        for path, record in zip(sample.splits[name].images, sample.splits[name].records, strict=True):
            free = ~masks_of(record).any(axis=0)
            values = read_image(path)[free]
            assert np.median(values) == grey


def test_held_out_digits_are_never_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits whose label says whether they are held out."""
    labels = (np.arange(1797) >= digits.FIRST_HELD_OUT).astype(np.int64)
    made = Digits(np.ones((1797, 8, 8), np.float32), labels)
    earth = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for split, expected in (("train", {0}), ("val", {1})):
        found = {label for _, record in digits._images(split, 5, earth, made) for label in record.labels.tolist()}
        assert found == expected


def test_boxes_and_areas_are_those_of_the_ink_and_touch_no_other() -> None:
    under = np.full((EDGE, EDGE, 3), 128, np.uint8)
    image, record = compose(under, read_digits(), 7, np.random.default_rng(3))
    masks = masks_of(record)
    assert (record.image_id, record.size, len(masks)) == (7, (EDGE, EDGE), len(record.labels))
    assert len(masks) >= digits.COUNTS[0] - 1
    assert masks.sum(axis=0).max() == 1
    for box, area, mask in zip(record.boxes_xyxy, record.areas, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert area == mask.sum()
        assert abs(float(image[mask == 1].mean()) - 128) > 30  # it can be seen
    changed = (image != under).any(axis=2)
    assert changed[masks.any(axis=0)].all()


def test_a_second_call_reads_nothing(sample: DetectionDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "read_earth", pytest.fail)
    assert prepare_digits(sample.root.parent) == sample.root


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"scikit-learn, which is not installed: .*cyclemlp\[sample\]"):
        read_digits()


def test_digits_are_what_they_are(tmp_path: Path) -> None:
    found = read_digits()
    assert found.opacities.shape == (1797, 8, 8)
    assert (float(found.opacities.min()), float(found.opacities.max())) == (0.0, 1.0)
    assert found.labels[:10].tolist() == list(range(10))
