"""What blocks of the ground mean for objects and for images with one class each.

The objects of an image are divided as pixels are, by the place of their centres; what belongs to the other split is a
region in which nothing is learnt or scored. An image with one class cannot be divided: it validates if its centre lies
in a held-out block, and trains if it lies farther than the margin from all images that validate.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cyclemlp.data.common_ground import Footprint
from cyclemlp.data.ground_blocks import Blocks, GroundPart, usual_edge
from cyclemlp.data.objects import ANY_CLASS, Boxes, Record
from cyclemlp.data.outlines import Polygons

_WHOLE_IMAGES = 4.0
"""Edge of a block in those of the images that it holds whole: in smaller ones nearly all would lie next to others."""
_ALMOST = 1 - 1e-6
_HALF = 0.5
"""Smallest overlap by which COCO matches a box with an object."""
_TOLERANCE = 0.5
"""Pixels that images may overlap, or be nearer than the margin: tools round coordinates."""


def whole_image_edge(places: Mapping[Path, Footprint], share: float) -> float:
    """The usual edge of blocks for images that are not divided; where few would fit in, the next round number."""
    edges = [max(place.bounds[2] - place.bounds[0], place.bounds[3] - place.bounds[1]) for place in places.values()]
    least, usual = _WHOLE_IMAGES * float(np.median(edges)), usual_edge(places, share)
    if usual >= least:
        return usual
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * number for number in range(1, 11) if power * number >= least * _ALMOST)


def split_whole_images(blocks: Blocks, places: Mapping[Path, Footprint]) -> dict[str, set[Path]]:
    """The images of `train` and of `val`; others are left out."""
    val = {path for path, place in places.items() if blocks.validates_at(*_middle(place))}
    others = [path for path in places if path not in val]
    bounds = np.array([places[path].bounds for path in others]).reshape(-1, 4)
    near = np.zeros(len(others), np.bool_)
    for path in val:
        left, bottom, right, top = places[path].bounds
        gap = blocks.margin * blocks.edge - _TOLERANCE * places[path].pixel
        near |= (
            (bounds[:, 0] < right + gap)
            & (bounds[:, 2] > left - gap)
            & (bounds[:, 1] < top + gap)
            & (bounds[:, 3] > bottom - gap)
        )
    return {"train": {path for path, left_out in zip(others, near.tolist(), strict=True) if not left_out}, "val": val}


def _middle(place: Footprint) -> tuple[float, float]:
    height, width = place.size
    x, y = place.points(np.array(width / 2), np.array(height / 2))
    return float(x), float(y)


def on_its_ground(record: Record, image: Path, part: GroundPart) -> Record:
    """The record of an image in which what is not on the ground of its split is ignored."""
    held_out = _held_out_boxes(part, image, record.size)
    regions = _without(held_out, record.size) if part.validates else held_out
    others = _centres_in(held_out, record.boxes_xyxy) != part.validates
    count = len(regions)
    return replace(
        record,
        boxes_xyxy=np.concatenate([record.boxes_xyxy, regions]).astype(np.float32),
        labels=np.concatenate([record.labels, np.full(count, ANY_CLASS, np.int64)]),
        crowd=np.concatenate([record.crowd | others, np.ones(count, np.bool_)]),
        areas=np.concatenate([record.areas, (regions[:, 2:] - regions[:, :2]).prod(axis=1)]),
        segmentations=(*record.segmentations, *(_outline(box) if record.has_masks else None for box in regions)),
    )


def counts_on_its_ground(boxes: Boxes, record: Record, image: Path, part: GroundPart) -> npt.NDArray[np.bool_]:
    """(N,) which boxes that were found in an image are compared with the labels of `on_its_ground`.

    Those whose centres lie on the ground of the split, and those that overlap one of its objects by half. Evaluators
    compare a box with one region to ignore at a time, and would count one that lies across two of them as a mistake.
    """
    own = record.boxes_xyxy[~record.crowd]
    shared = np.clip(
        np.minimum(boxes[:, None, 2:], own[:, 2:]) - np.maximum(boxes[:, None, :2], own[:, :2]), 0, None
    ).prod(axis=2)
    areas, theirs = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, own))
    overlaps: npt.NDArray[np.bool_] = (shared >= _HALF * (areas[:, None] + theirs - shared)).any(axis=1)
    return overlaps | (_centres_in(_held_out_boxes(part, image, record.size), boxes) == part.validates)


def _centres_in(held_out: Boxes, boxes: Boxes) -> npt.NDArray[np.bool_]:
    """(N,) whether the centre of each box lies in a held-out block."""
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    within: npt.NDArray[np.bool_] = (middles[:, None] >= held_out[:, :2]) & (middles[:, None] < held_out[:, 2:])
    return np.any(np.all(within, axis=2), axis=1)


def _held_out_boxes(part: GroundPart, image: Path, size: tuple[int, int]) -> Boxes:
    """Where an image shows held-out blocks, for training with their margin: (N, 4) in pixels, within the image."""
    blocks, place = part.blocks, part.blocks.place_of(image)
    margin = 0.0 if part.validates else blocks.margin
    left, bottom, right, top = (math.floor(bound / blocks.edge) for bound in place.bounds)
    beyond = math.ceil(margin)
    boxes = []
    for column, row in blocks.held_within((left - beyond, bottom - beyond), (right + beyond, top + beyond)):
        x = np.array([column - margin, column + 1 + margin] * 2) * blocks.edge
        y = np.repeat([row - margin, row + 1 + margin], 2) * blocks.edge
        columns, rows = place.pixels_at(x, y)
        boxes.append([columns.min(), rows.min(), columns.max(), rows.max()])
    height, width = size
    cut = np.clip(np.array(boxes, np.float64).reshape(-1, 4), 0, [width, height, width, height])
    return cut[(cut[:, 2:] - cut[:, :2] > 0).all(axis=1)].astype(np.float32)


def _without(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """The rest of an image (height, width) as rectangles: those between the boxes, as high as they can be."""
    height, width = size
    rows = sorted({0.0, float(height), *boxes[:, 1].tolist(), *boxes[:, 3].tolist()})
    found: list[list[float]] = []
    open_ones: dict[tuple[float, float], list[float]] = {}
    for top, bottom in pairwise(rows):
        crossing = boxes[(boxes[:, 1] <= top) & (boxes[:, 3] >= bottom)]
        gaps = _gaps(crossing, float(width))
        open_ones = {gap: open_ones.get(gap) or [gap[0], top, gap[1], bottom] for gap in gaps}
        for rectangle in open_ones.values():
            rectangle[3] = bottom
            if rectangle not in found:
                found.append(rectangle)
    return np.array(found, np.float32).reshape(-1, 4)


def _gaps(boxes: Boxes, width: float) -> list[tuple[float, float]]:
    """The parts of a row that no box covers."""
    gaps, start = [], 0.0
    for left, right in sorted(zip(boxes[:, 0].tolist(), boxes[:, 2].tolist(), strict=True)):
        if left > start:
            gaps.append((start, left))
        start = max(start, right)
    return [*gaps, (start, width)] if start < width else gaps


def _outline(box: npt.NDArray[np.float32]) -> Polygons:
    left, top, right, bottom = box.tolist()
    return Polygons((np.array([left, top, right, top, right, bottom, left, bottom]),))
