"""Boxes and masks go where the pixels go."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cyclemlp.data.augmentation import BoxAugmentation
from cyclemlp.data.box_transforms import BoxTrainTransform
from cyclemlp.data.objects import Record
from cyclemlp.data.outlines import rle_of_mask
from cyclemlp.data.resizing import ResizeRule
from cyclemlp.data.transforms import Normalisation

AS_IT_IS = BoxAugmentation(
    crop_size=None, scale=(1.0, 1.0), flip=0.0, brightness=0.0, contrast=0.0, saturation=0.0, visible=0.3
)
UNCHANGED = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def record_of(boxes: Sequence[Sequence[float]], size: tuple[int, int], crowd: tuple[int, ...] = ()) -> Record:
    """Objects that fill their boxes, of classes 0, 1, ..."""
    masks = [np.zeros(size, dtype=np.uint8) for _ in boxes]
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[int(top) : int(bottom), int(left) : int(right)] = 1
    return Record(
        image_id=1,
        size=size,
        boxes_xyxy=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.arange(len(boxes)),
        crowd=np.isin(np.arange(len(boxes)), crowd),
        areas=np.array([mask.sum() for mask in masks], dtype=np.float64),
        segmentations=tuple(rle_of_mask(mask) for mask in masks),
    )


def places(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An image whose red is the column and whose green is the row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8)


def transformed(
    pixels: np.ndarray[Any, np.dtype[np.uint8]],
    record: Record,
    augmentation: BoxAugmentation = AS_IT_IS,
    rule: ResizeRule | None = None,
    seed: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(seed)
    return BoxTrainTransform(augmentation, UNCHANGED, rule or ResizeRule(), masks=True)(pixels, record)


@pytest.mark.parametrize(
    ("options", "boxes", "axis"),
    [
        ({"flip": 1.0}, [[18, 3, 28, 8], [0, 0, 30, 1]], -1),
        ({"vertical_flip": 1.0}, [[2, 12, 12, 17], [0, 19, 30, 20]], -2),
    ],
)
def test_flips_by_hand(options: dict[str, float], boxes: list[list[float]], axis: int) -> None:
    pixels, record = places(20, 30), record_of([[2, 3, 12, 8], [0, 0, 30, 1]], (20, 30))
    plain, _ = transformed(pixels, record)
    image, target = transformed(pixels, record, replace(AS_IT_IS, **options))  # type: ignore[arg-type]
    assert torch.equal(image, plain.flip(axis))
    assert target["boxes"].tolist() == boxes
    for mask, (left, top, right, bottom) in zip(target["masks"], boxes, strict=True):
        assert int(mask.sum()) == (right - left) * (bottom - top)
        assert mask[int(top) : int(bottom), int(left) : int(right)].all()


def test_what_enough_is_left_of_stays_in_a_crop() -> None:
    pixels = places(100, 140)
    boxes = [[5, 5, 45, 35], [60, 50, 70, 90], [0, 0, 140, 100], [90, 10, 130, 20]]
    record = record_of(boxes, (100, 140))
    augmentation = replace(AS_IT_IS, crop_size=64, visible=0.3)
    seen: set[int] = set()
    for seed in range(12):
        image, target = transformed(pixels, record, augmentation, seed=seed)
        assert image.shape == (3, 64, 64)
        left, top = (round(float(image[channel, 0, 0]) * 255) for channel in (0, 1))
        expected = {}
        for number, (x0, y0, x1, y1) in enumerate(boxes):
            cut = [max(x0 - left, 0), max(y0 - top, 0), min(x1 - left, 64), min(y1 - top, 64)]
            area = max(cut[2] - cut[0], 0) * max(cut[3] - cut[1], 0)
            if area >= 0.3 * (x1 - x0) * (y1 - y0):
                expected[number] = cut
        seen |= set(expected)
        assert target["labels"].tolist() == list(expected)
        assert target["boxes"].tolist() == list(expected.values())
        for mask, (x0, y0, x1, y1) in zip(target["masks"], expected.values(), strict=True):
            assert int(mask.sum()) == (x1 - x0) * (y1 - y0)
            assert mask[y0:y1, x0:x1].all()
    assert seen == {0, 1, 3}  # the whole image never shows enough of itself


@pytest.mark.parametrize("factor", [0.5, 1.37, 2.0])
@pytest.mark.parametrize("crop", [None, 64])
def test_box_mask_and_pixels_stay_together(factor: float, crop: int | None) -> None:
    pixels = np.zeros((97, 121, 3), dtype=np.uint8)
    pixels[30:74, 40:90] = 255
    record = record_of([[40, 30, 90, 74]], (97, 121))
    augmentation = replace(AS_IT_IS, crop_size=crop, scale=(0.9, 1.1), flip=0.5, visible=0.0)
    for seed in range(4):
        image, target = transformed(pixels, record, augmentation, ResizeRule(factor), seed)
        assert target["masks"].shape[1:] == image.shape[1:]
        white = image[0] > 0.5
        if not len(target["boxes"]):
            continue
        (mask,), (box,) = target["masks"].bool(), target["boxes"]
        assert float((mask != white).float().mean()) < 0.03  # antialiasing at the edge
        rows, columns = torch.nonzero(mask, as_tuple=True)
        drawn = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert float((drawn - box).abs().max()) <= 1.0


def test_regions_to_ignore_and_slivers_are_not_learnt_from() -> None:
    record = record_of([[0, 0, 8, 8], [10, 10, 13, 18], [20, 10, 25, 18]], (20, 30), crowd=(0,))
    _, target = transformed(places(20, 30), record, rule=ResizeRule(0.25))
    assert target["labels"].tolist() == [2]  # object 1 would be three quarters of a pixel wide


def test_an_image_without_objects() -> None:
    image, target = transformed(places(20, 30), record_of([], (20, 30)), rule=ResizeRule(2.0))
    assert image.shape == (3, 40, 60)
    assert {name: tuple(each.shape) for name, each in target.items()} == {
        "boxes": (0, 4),
        "labels": (0,),
        "ignored": (0, 4),
        "masks": (0, 40, 60),
    }
    assert target["labels"].dtype == torch.int64


def test_what_is_not_learnt_from_is_named_as_ignored() -> None:
    """A crowd region, what the crop leaves too little of, what is too small; not what lies outside of the crop."""
    boxes: list[list[float]] = [[4, 4, 24, 14], [30, 30, 50, 40], [60, 4, 60.5, 30], [4, 50, 20, 60]]
    record = record_of(boxes, (64, 96), crowd=(1,))
    _, target = transformed(places(64, 96), record)
    assert target["labels"].tolist() == [0, 3]
    assert target["boxes"].tolist() == [boxes[0], boxes[3]]
    assert len(target["masks"]) == 2
    assert target["ignored"].tolist() == [boxes[1], boxes[2]]
    _, flipped = transformed(places(64, 96), record, replace(AS_IT_IS, flip=1.0))
    assert flipped["ignored"].tolist() == [[46, 30, 66, 40], [35.5, 4, 36, 30]]


def test_what_a_crop_leaves_too_little_of_is_ignored_where_it_is_seen() -> None:
    record = record_of([[0, 0, 140, 100], [90, 10, 130, 20]], (100, 140))
    whole_in_part = 0
    for seed in range(12):
        image, target = transformed(places(100, 140), record, replace(AS_IT_IS, crop_size=64, visible=0.9), seed=seed)
        left, top = (round(float(image[channel, 0, 0]) * 255) for channel in (0, 1))
        cut = max(0, min(130, left + 64) - max(90, left)) * max(0, min(20, top + 64) - max(10, top))
        assert target["ignored"].tolist()[0] == [0, 0, 64, 64]
        assert len(target["ignored"]) + len(target["labels"]) == 1 + (cut > 0)
        whole_in_part += len(target["ignored"]) - 1
    assert whole_in_part > 0
