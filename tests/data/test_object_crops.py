"""Crops that hold an object: in images that are mostly empty few others would."""

import numpy as np
import pytest
import torch

from cyclemlp.data.augmentation import BoxAugmentation
from cyclemlp.data.box_transforms import BoxTrainTransform
from cyclemlp.data.objects import Record
from cyclemlp.data.resizing import ResizeRule
from cyclemlp.data.transforms import Normalisation
from cyclemlp.errors import ConfigError

HEIGHT, WIDTH = 300, 500
CORNERS = np.array([[0, 0, 5, 5], [496, 296, 500, 300], [250, 10, 258, 18]], np.float32)


def record(boxes: np.ndarray = CORNERS, *, crowd: bool = False) -> Record:
    count = len(boxes)
    return Record(
        image_id=1,
        size=(HEIGHT, WIDTH),
        boxes_xyxy=boxes.astype(np.float32),
        labels=np.arange(count),
        crowd=np.full(count, crowd),
        areas=np.ones(count),
        segmentations=(None,) * count,
    )


def found_in_crops(share: float, objects: Record, crops: int = 60) -> list[list[int]]:
    """Labels in each of some random crops of 64 pixels."""
    options = BoxAugmentation(crop_size=64, object_crops=share, visible=0.1)
    transform = BoxTrainTransform(options, Normalisation(), ResizeRule())
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    labels = []
    for seed in range(crops):
        torch.manual_seed(seed)
        image, target = transform(pixels, objects)
        assert image.shape == (3, 64, 64)
        labels.append(target["labels"].tolist())
    return labels


def test_every_crop_holds_an_object_and_every_object_is_drawn() -> None:
    found = found_in_crops(1.0, record())
    assert all(found)
    assert {label for labels in found for label in labels} == {0, 1, 2}


def test_without_the_option_most_crops_of_an_empty_image_are_empty() -> None:
    assert sum(map(bool, found_in_crops(0.0, record()))) < 20


@pytest.mark.parametrize("objects", [record(crowd=True), record(CORNERS[:0])])
def test_where_nothing_is_to_be_learnt_crops_lie_anywhere(objects: Record) -> None:
    assert not any(found_in_crops(1.0, objects, crops=5))


def test_a_share_above_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--object-crops 1\.5 is not allowed: from 0 to 1"):
        BoxAugmentation(object_crops=1.5)
