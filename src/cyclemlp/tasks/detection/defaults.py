"""Image size, crops, anchors and number of boxes where they are not given, chosen from the training labels."""

import logging
import math
from dataclasses import replace
from typing import TypeVar

import numpy as np

from cyclemlp.data.objects import DetectionSplit
from cyclemlp.heads.detection_options import COCO_DETECTIONS, MASK_RCNN, PAPER_CANDIDATES, STRIDES
from cyclemlp.tasks.detection.config import DetectionConfig

ConfigT = TypeVar("ConfigT", bound=DetectionConfig)

TARGET_EDGE = 24
"""Width in network pixels to which the small objects of a data set are brought."""
SMALL = 0.1
"""Quantile of object sizes that counts as small; every class weighs the same, as it does in AP."""
LARGE = 0.9
"""Quantile of object sizes that counts as large."""
MIN_CROP, MAX_CROP, CROP_STEP = 256, 384, 64
MAX_SCALE, MIN_SCALE = 4.0, 0.25
MAX_PIXELS = 4e6
"""Images are not upscaled beyond this."""
LEAST_PIXELS = 224**2
"""Images are not downscaled below this, whatever the size of their objects."""
_PROPOSALS_PER_BOX = 3
# torchvision matches anchors that overlap an object by half or more: with these steps one of them always does.
_ANCHOR_SIZES = {"retinanet": (1.0, 1.5, 2.0, 3.0, 4.0), "mask-rcnn": (2.0, 3.0, 4.0, 6.0, 8.0)}

_logger = logging.getLogger(__name__)


def with_defaults(config: ConfigT, split: DetectionSplit) -> ConfigT:
    """The config with input scale, crop, anchor size and number of boxes filled in, and a line in the log."""
    small = _edge(split, SMALL)
    pixels = float(np.median([height * width for height, width in (record.size for record in split.records)]))
    if config.input_scale is None and config.short_side is None:
        config = replace(config, input_scale=_input_scale(small, pixels))
    if config.augmentation.crop_size == "auto":
        crop = _crop(config, _edge(split, LARGE))
        config = replace(config, augmentation=replace(config.augmentation, crop_size=crop))
    head = config.detector
    if head.anchor_size is None:
        head = replace(head, anchor_size=_anchor_size(config, small))
    if head.detections is None:
        head = replace(head, detections=_detections(split))
    if head.candidates is None:
        head = replace(head, candidates=proposals(config.head, head.kept))
    _logger.info(
        "small objects are %.0f pixels wide: images are resized by %s, anchors are %g strides, %s, %d boxes per image",
        *(small, config.input_scale or f"the rule of --short-side {config.short_side}", head.anchor_size),
        "images are not cut" if (edge := config.augmentation.crop_edge) is None else f"crops are {edge} pixels",
        head.detections,
    )
    return replace(config, detector=head)


def _edge(split: DetectionSplit, quantile: float) -> float:
    """Edge in pixels, of the square of a box's area, that this share of the objects do not reach; 32 without any."""
    counted = [record.select(~record.crowd) for record in split.records]
    boxes = np.concatenate([each.boxes_xyxy for each in counted] or [np.zeros((0, 4), np.float32)]).astype(np.float64)
    if not len(boxes):
        return 32.0
    labels = np.concatenate([each.labels for each in counted])
    edges = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    weights = 1 / np.bincount(labels)[labels]
    order = np.argsort(edges)
    reached = np.searchsorted(np.cumsum(weights[order]), quantile * weights.sum())
    return float(edges[order[min(reached, len(order) - 1)]])


def _input_scale(small: float, pixels: float) -> float:
    wanted = 2.0 ** round(math.log2(TARGET_EDGE / max(small, 1.0)))
    while wanted < 1.0 and pixels * wanted**2 < LEAST_PIXELS:
        wanted *= 2
    while wanted > 1.0 and pixels * wanted**2 > MAX_PIXELS:
        wanted /= 2
    return min(max(wanted, MIN_SCALE), MAX_SCALE)


def _crop(config: DetectionConfig, large: float) -> int:
    """Small, since more steps are worth more than more pixels in each, but twice as wide as large objects."""
    if config.input_scale is None:
        return MAX_CROP
    wanted = CROP_STEP * math.ceil(2 * large * config.input_scale / CROP_STEP)
    return min(max(wanted, MIN_CROP), MAX_CROP)


def _anchor_size(config: DetectionConfig, small: float) -> float:
    """Of a few sizes in geometric steps, the one whose smallest anchor is nearest to the small objects."""
    sizes = _ANCHOR_SIZES.get(config.head, (4.0,))
    if config.input_scale is None:  # objects then have sizes for which the papers' anchors are made
        return sizes[-1]
    strides = small * config.input_scale / STRIDES.get(config.head, (8,))[0]
    return min(sizes, key=lambda size: abs(math.log(size / max(strides, 1e-3))))


def _detections(split: DetectionSplit) -> int:
    """COCO's number, or where images hold more objects, 1.5 times their maximum in hundreds."""
    most = max((int((~record.crowd).sum()) for record in split.records), default=0)
    return max(COCO_DETECTIONS, 100 * math.ceil(1.5 * most / 100) if most > 0.7 * COCO_DETECTIONS else 0)


def proposals(head: str, kept: int) -> int:
    """The papers' number; at most three per box that is kept in Mask R-CNN, where each proposal costs time."""
    return max(kept, min(PAPER_CANDIDATES, _PROPOSALS_PER_BOX * kept)) if head == MASK_RCNN else PAPER_CANDIDATES
