"""Options of detectors: what is refused, and what follows from the labels where nothing is given."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyclemlp.data.augmentation import BoxAugmentation
from cyclemlp.data.objects import DetectionSplit, Record
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.detection.config import DetectionConfig, DetectionLossWeights, LightHead
from cyclemlp.tasks.detection.defaults import with_defaults
from cyclemlp.tasks.instance_segmentation.task import InstanceSegmentationConfig

DATA = Path("cells")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DetectionConfig(data=DATA, input_scale=0.0), "--input-scale 0.0 is not allowed: more than 0"),
        (lambda: DetectionConfig(data=DATA, short_side=-1), "--short-side -1 is not allowed: more than 0"),
        (lambda: DetectionConfig(data=DATA, long_side=0), "--long-side 0 is not allowed: more than 0"),
        (lambda: DetectionConfig(data=DATA, head_width=4), "--head-width 4 is too small: 8 or more"),
        (
            lambda: DetectionConfig(data=DATA, input_scale=2.0, short_side=800),
            "--input-scale and --short-side were both given: give one of them",
        ),
        (
            lambda: InstanceSegmentationConfig(data=DATA, head="retinanet"),
            "--head retinanet gives no masks: instance-segmentation needs mask-rcnn",
        ),
        (lambda: InstanceSegmentationConfig(data=DATA, head_width=2), "--head-width 2 is too small"),
        (lambda: DetectionLossWeights(box_weight=0.0), "--box-weight 0.0 is not allowed: more than 0"),
        (lambda: BoxAugmentation(crop_size=32), "--crop-size 32 is too small: 64 or more"),
        (lambda: BoxAugmentation(scale=(2.0, 1.0)), "--scale 2.0 1.0: two factors above 0, smaller first"),
        (lambda: BoxAugmentation(visible=1.5), "--visible 1.5 is not allowed: from 0 to 1"),
    ],
)
def test_messages(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make()
    assert message in str(refused.value)


def split_of(edge: float, size: tuple[int, int], count: int = 10, images: int = 3) -> DetectionSplit:
    """Images of one size with `count` square objects of one edge."""
    boxes = np.tile(np.array([0, 0, edge, edge], dtype=np.float32), (count, 1))
    zeros = np.zeros(count, dtype=np.int64)
    records = [
        Record(i, size, boxes, zeros, zeros.astype(bool), np.full(count, edge**2), (None,) * count)
        for i in range(images)
    ]
    return DetectionSplit(tuple(Path(f"{i}.png") for i in range(images)), tuple(records))


@pytest.mark.parametrize(
    ("edge", "size", "scale", "anchor"),
    [
        (6, (200, 200), 4.0, 3.0),  # 24 / 6; then 24 pixels are 3 strides of 8
        (24, (300, 400), 1.0, 3.0),
        (100, (2000, 2000), 0.25, 3.0),  # 24 / 100 is nearest to a quarter; 25 pixels are 3.1 strides
        (100, (500, 500), 0.5, 4.0),  # a quarter would be 125 pixels wide: too few to see what is around the objects
        (48, (480, 640), 0.5, 3.0),  # blood cells
        (48, (300, 300), 1.0, 4.0),
        (6, (1000, 1000), 2.0, 1.5),  # four times would be 16 million pixels
        (6, (1500, 1500), 1.0, 1.0),
    ],
)
def test_image_size_and_anchors_follow_from_the_small_objects(
    edge: float, size: tuple[int, int], scale: float, anchor: float
) -> None:
    found = with_defaults(DetectionConfig(data=DATA), split_of(edge, size))
    assert (found.input_scale, found.detector.anchor_size) == (scale, anchor)


@pytest.mark.parametrize(("edge", "crop"), [(6, 256), (24, 256), (128, 256), (150, 320), (190, 384), (500, 384)])
def test_crops_hold_large_objects(edge: float, crop: int) -> None:
    given = DetectionConfig(data=DATA, input_scale=1.0)
    assert with_defaults(given, split_of(edge, (1000, 1000))).augmentation.crop_size == crop
    by_side = DetectionConfig(data=DATA, short_side=800)  # the size of objects in it is not known
    assert with_defaults(by_side, split_of(edge, (1000, 1000))).augmentation.crop_size == 384


def test_whole_images_stay_whole() -> None:
    given = DetectionConfig(data=DATA, augmentation=BoxAugmentation(crop_size=None))
    assert with_defaults(given, split_of(24, (300, 300))).augmentation.crop_size is None


def test_a_rare_class_of_small_objects_counts() -> None:
    """Platelets are a few percent of the cells in blood, and a third of the score."""
    large, small = split_of(100, (480, 640), count=60), split_of(36, (480, 640), count=3, images=1)
    platelets = replace(small.records[0], labels=small.records[0].labels + 1)
    split = DetectionSplit((*large.images, *small.images), (*large.records, platelets))
    found = with_defaults(DetectionConfig(data=DATA), split)
    assert (found.input_scale, found.detector.anchor_size) == (0.5, 2.0)  # 18 pixels are 2.25 strides of 8
    assert with_defaults(DetectionConfig(data=DATA), large).detector.anchor_size == 4.0


def test_mask_rcnn_has_finer_strides() -> None:
    found = with_defaults(InstanceSegmentationConfig(data=DATA), split_of(24, (300, 300)))
    assert found.detector.anchor_size == 6.0  # 24 pixels are 6 strides of 4


@pytest.mark.parametrize(("count", "boxes"), [(0, 100), (70, 100), (71, 200), (133, 200), (134, 300)])
def test_as_many_boxes_as_labels_need(count: int, boxes: int) -> None:
    found = with_defaults(DetectionConfig(data=DATA), split_of(24, (300, 300), count))
    assert found.detector.detections == boxes


def test_what_is_given_stays() -> None:
    given = DetectionConfig(data=DATA, short_side=800, detector=LightHead(detections=7))
    found = with_defaults(given, split_of(6, (200, 200)))
    assert found.input_scale is None
    assert (found.detector.detections, found.detector.anchor_size) == (7, 4.0)  # at 800 pixels the papers' anchors
