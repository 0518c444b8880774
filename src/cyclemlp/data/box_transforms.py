"""From an image and its objects to training tensors: scale, cut, flip, turn, colour, normalise."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cyclemlp.data.augmentation import BoxAugmentation
from cyclemlp.data.images import Pixels
from cyclemlp.data.objects import Record
from cyclemlp.data.outlines import whole_mask
from cyclemlp.data.resizing import ResizeRule
from cyclemlp.data.transforms import (
    Normalisation,
    drawn_flips,
    drawn_turns,
    jittered,
    log_uniform,
    random_start,
    resize_image,
    resize_labels,
    uniform,
)

Target = dict[str, Tensor]
MIN_EDGE = 1.0
"""Boxes narrower than this many network pixels are ignored."""


@dataclass(frozen=True)
class BoxTrainTransform:
    """A random training sample of an image, uint8 (H, W, 3), and its record.

    Returns the image, float32 (3, h, w) normalised, and a target with `boxes` (N, 4) float32 within it, `labels` (N,)
    int64 and, with `masks`, `masks` (N, h, w) uint8. `ignored` (M, 4) float32 are the boxes in which nothing may be
    learnt: regions to ignore, objects that are too small, and those of which the crop leaves too little.
    """

    augmentation: BoxAugmentation
    normalisation: Normalisation = field(default_factory=Normalisation)
    rule: ResizeRule = field(default_factory=ResizeRule)
    masks: bool = False

    def __call__(self, pixels: Pixels, record: Record) -> tuple[Tensor, Target]:
        region, size = self._region(pixels.shape[0], pixels.shape[1], record.select(~record.crowd))
        record, ignored = _within(record, region, size, self.augmentation.visible)
        part = torch.from_numpy(pixels[region.rows, region.columns]).permute(2, 0, 1)
        image = self.normalisation(jittered(resize_image(part, size), self.augmentation))
        target = {
            "boxes": torch.from_numpy(_moved(record.boxes_xyxy, region, size)),
            "labels": torch.from_numpy(record.labels),
            "ignored": torch.from_numpy(_moved(ignored.boxes_xyxy, region, size)),
        }
        if self.masks:
            target["masks"] = _masks(record, region, size)
        for axis in drawn_flips(self.augmentation):
            image, target = image.flip(axis), _flipped(target, axis, image.shape[axis])
        for _ in range(drawn_turns(self.augmentation.rotate90)):
            image, target = image.rot90(1, (-2, -1)), _turned(target, image.shape[-1])
        return image, target

    def _region(self, height: int, width: int, record: Record) -> tuple["_Region", tuple[int, int]]:
        """The part of the image that is cut, and the size it is resized to."""
        factor = log_uniform(*self.augmentation.scale)
        new = [max(1, round(edge * factor)) for edge in self.rule.size(height, width)]
        crop = self.augmentation.crop_edge or max(new)
        size = (min(new[0], crop), min(new[1], crop))
        # Whole pixels of the image are cut, so that masks and image are resized alike.
        edges = [
            max(1, round(given * kept / all_)) for given, kept, all_ in zip((height, width), size, new, strict=True)
        ]
        middle = self._middle_of_an_object(record)
        starts = [random_start(*each) for each in zip(edges, (height, width), middle, strict=True)]
        rows, columns = (slice(start, start + edge) for start, edge in zip(starts, edges, strict=True))
        return _Region(rows, columns), size

    def _middle_of_an_object(self, record: Record) -> tuple[int | None, int | None]:
        """Row and column that the crop is to hold, None where it may be anywhere."""
        share = self.augmentation.object_crops
        if not share or not len(record.labels) or uniform(0, 1) >= share:
            return None, None
        left, top, right, bottom = record.boxes_xyxy[int(torch.randint(0, len(record.labels), ()))].tolist()
        return int((top + bottom) / 2), int((left + right) / 2)


@dataclass(frozen=True)
class _Region:
    rows: slice
    columns: slice

    @property
    def frame(self) -> npt.NDArray[np.float32]:
        """Left, top, right, bottom."""
        values = (self.columns.start, self.rows.start, self.columns.stop, self.rows.stop)
        return np.array(values, dtype=np.float32)

    def factors(self, size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Factors on x, y, x, y."""
        left, top, right, bottom = self.frame
        return np.array([size[1] / (right - left), size[0] / (bottom - top)] * 2, dtype=np.float32)


def _within(record: Record, region: _Region, size: tuple[int, int], visible: float) -> tuple[Record, Record]:
    """The objects in the region, those to learn from and those to ignore."""
    boxes, frame = record.boxes_xyxy, region.frame
    left = np.clip(boxes, frame[[0, 1, 0, 1]], frame[[2, 3, 2, 3]])
    edges = left[:, 2:] - left[:, :2]
    shares = edges.prod(axis=1) / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-6)
    wide = (edges * region.factors(size)[:2] >= MIN_EDGE).all(axis=1)
    learnt = ~record.crowd & wide & (shares >= max(visible, 1e-6))
    return record.select(learnt), record.select(~learnt & (edges > 0).all(axis=1))


def _moved(boxes: npt.NDArray[np.float32], region: _Region, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    height, width = size
    moved = (boxes - region.frame[[0, 1, 0, 1]]) * region.factors(size)
    cut: npt.NDArray[np.float32] = np.clip(moved, 0, np.array([width, height, width, height])).astype(np.float32)
    return cut


def _masks(record: Record, region: _Region, size: tuple[int, int]) -> Tensor:
    """Cut before they are stacked: those of a large image together would fill the memory."""
    parts = [whole_mask(outline, record.size)[region.rows, region.columns] for outline in record.segmentations]
    return resize_labels(torch.from_numpy(np.stack(parts)), size) if parts else torch.zeros(0, *size, dtype=torch.uint8)


def _flipped(target: Target, axis: int, length: int) -> Target:
    masks = {"masks": target["masks"].flip(axis)} if "masks" in target else {}
    boxes = {name: _mirrored(target[name], axis, length) for name in ("boxes", "ignored")}
    return {**target, **boxes, **masks}


def _turned(target: Target, width: int) -> Target:
    """By a quarter turn to the left, in which what is at the right edge of an image of this width gets to the top."""
    masks = {"masks": target["masks"].rot90(1, (-2, -1))} if "masks" in target else {}
    boxes = {}
    for name in ("boxes", "ignored"):
        left, top, right, bottom = target[name].unbind(1)
        boxes[name] = torch.stack([top, width - right, bottom, width - left], dim=1)
    return {**target, **boxes, **masks}


def _mirrored(boxes: Tensor, axis: int, length: int) -> Tensor:
    mirrored = boxes.clone()
    low, high = (0, 2) if axis == -1 else (1, 3)
    mirrored[:, low], mirrored[:, high] = (length - boxes[:, edge] for edge in (high, low))
    return mirrored
