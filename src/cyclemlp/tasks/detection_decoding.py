"""From an image to the objects in it, around a network in whatever runtime; numpy alone, so exported files do.

Decoding gives what torchvision's `RetinaNet.postprocess_detections` gives on the same outputs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cyclemlp.data.resizing import ResizeRule
from cyclemlp.heads.anchors import level_anchors, padded
from cyclemlp.heads.detection_options import RETINANET, DetectionHead
from cyclemlp.tasks.card import ModelCard

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
RunNetwork = Callable[[FloatArray], tuple[FloatArray, ...]]
"""From normalised images (1, C, H, W) to the network's raw outputs."""

# Wider or higher than 62.5 times its anchor no box is: it keeps exp() finite while training is young.
_MOST_GROWTH = math.log(1000 / 16)


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found in an image, the likeliest first; index i of every field is object i."""

    boxes_xyxy: FloatArray
    """(D, 4) left, top, right, bottom in pixels of the image."""
    scores: FloatArray
    """(D,) from 0 to 1."""
    labels: IntArray
    """(D,) class numbers from 0 on."""
    mask_probabilities: FloatArray | None = None
    """(D, M, M) over each box, for instance segmentation."""

    def select(self, keep: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> "Detections":
        """Some of them, by a mask or by numbers."""
        masks = None if self.mask_probabilities is None else self.mask_probabilities[keep]
        return Detections(self.boxes_xyxy[keep], self.scores[keep], self.labels[keep], masks)

    def stricter(self, score_threshold: float, nms: float) -> "Detections":
        """Those of at least this score, after suppression at this overlap."""
        likely = self.select(self.scores >= score_threshold)
        return likely.select(suppress(likely.boxes_xyxy, likely.scores, likely.labels, nms, len(likely.scores)))


def detect(run: RunNetwork, card: ModelCard, pixels: npt.NDArray[np.uint8]) -> Detections:
    """The objects in an image (H, W, C) of any size, by the network that `card` describes."""
    options = card.detection or DetectionHead()
    resized = resize_rule(card).resized(pixels)
    size = resized.shape[:2]
    outputs = run(_network_input(resized, card))
    if card.head == RETINANET:
        found = decode(outputs[0][0], outputs[1][0], options, size)
    else:
        boxes, scores, labels, masks = outputs
        found = Detections(boxes, scores, labels.astype(np.int64), masks)
        found = found.stricter(options.score_threshold, options.nms)  # the card may say more than the network did
    factors = np.array([pixels.shape[1] / size[1], pixels.shape[0] / size[0]] * 2, dtype=np.float32)
    return replace(found, boxes_xyxy=found.boxes_xyxy * factors)


def resize_rule(card: ModelCard) -> ResizeRule:
    """How images are resized for the network of `card`."""
    return ResizeRule(card.input_scale, card.short_side, card.long_side)


def _network_input(pixels: npt.NDArray[np.uint8], card: ModelCard) -> FloatArray:
    """Normalised (1, C, H, W), filled up with the mean colour to edges a detector takes."""
    mean, std = (np.array(values, dtype=np.float32) * 255 for values in (card.mean, card.std))
    height, width = pixels.shape[:2]
    image = np.zeros((1, pixels.shape[2], padded(height), padded(width)), dtype=np.float32)
    image[0, :, :height, :width] = ((pixels - mean) / std).transpose(2, 0, 1)
    return image


def decode(logits: FloatArray, offsets: FloatArray, options: DetectionHead, size: tuple[int, int]) -> Detections:
    """Objects from RetinaNet's raw outputs for an image of `size` (height, width) before it was filled up.

    `logits` (anchors, K) and `offsets` (anchors, 4) are in the order of `level_anchors`.
    """
    boxes, scores, labels, start = [], [], [], 0
    for anchors in level_anchors(RETINANET, options, padded(size[0]), padded(size[1])):
        part = slice(start, start + len(anchors))
        rows, classes, likely = _candidates(logits[part], options)
        boxes.append(clipped(apply_offsets(offsets[part][rows], anchors[rows]), size))
        scores.append(likely)
        labels.append(classes)
        start += len(anchors)
    found = Detections(np.concatenate(boxes), np.concatenate(scores), np.concatenate(labels))
    return found.select(suppress(found.boxes_xyxy, found.scores, found.labels, options.nms, options.kept))


def _candidates(logits: FloatArray, options: DetectionHead) -> tuple[IntArray, IntArray, FloatArray]:
    """Rows, classes and scores of a level's likeliest entries above the threshold, the likeliest first."""
    flat = logits.reshape(-1)
    # Most entries are far below the threshold: comparing logits spares their exponentials.
    threshold = options.score_threshold
    least = math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else (math.inf if threshold else -math.inf)
    places = np.flatnonzero(flat > least)
    order = np.argsort(-flat[places], kind="stable")[: options.candidates]
    chosen = places[order].astype(np.int64)
    scores = (1 / (1 + np.exp(-flat[chosen].astype(np.float64)))).astype(np.float32)
    return chosen // logits.shape[1], chosen % logits.shape[1], scores


def apply_offsets(offsets: FloatArray, anchors: FloatArray) -> FloatArray:
    """Anchors (N, 4) moved by dx, dy in their sizes and grown by exp(dw), exp(dh)."""
    sizes = anchors[:, 2:] - anchors[:, :2]
    centres = anchors[:, :2] + 0.5 * sizes + offsets[:, :2] * sizes
    halves = 0.5 * np.exp(np.minimum(offsets[:, 2:], np.float32(_MOST_GROWTH))) * sizes
    return np.concatenate([centres - halves, centres + halves], axis=1).astype(np.float32)


def clipped(boxes: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Boxes cut to an image of `size` (height, width)."""
    height, width = size
    return np.clip(boxes, 0, np.array([width, height, width, height], dtype=np.float32))


def suppress(boxes: FloatArray, scores: FloatArray, labels: IntArray, most_overlap: float, count: int) -> IntArray:
    """Numbers of the boxes kept, the likeliest first and at most `count`.

    A box falls where a likelier one of its class that is kept overlaps it by more than `most_overlap` (IoU).
    """
    order = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    while len(order) and len(kept) < count:
        best, order = int(order[0]), order[1:]
        kept.append(best)
        others = boxes[order]
        edges = np.minimum(boxes[best, 2:], others[:, 2:]) - np.maximum(boxes[best, :2], others[:, :2])
        shared = np.maximum(edges, 0).prod(axis=1)
        with np.errstate(invalid="ignore"):  # two boxes without area: 0 / 0 is no overlap
            overlaps = shared / (areas[best] + areas[order] - shared) > most_overlap
        order = order[~(overlaps & (labels[order] == labels[best]))]
    return np.array(kept, dtype=np.int64)


def paste_mask(probabilities: FloatArray, box_xyxy: FloatArray, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The mask (H, W) of an object in an image of `size`: probabilities (M, M) over its box, above one half.

    Sampled bilinearly at the centres of the pixels.
    """
    left, top, right, bottom = (float(value) for value in box_xyxy)
    mask = np.zeros(size, dtype=np.bool_)
    rows = slice(max(0, math.floor(top)), min(size[0], math.ceil(bottom)))
    columns = slice(max(0, math.floor(left)), min(size[1], math.ceil(right)))
    if bottom <= top or right <= left:
        return mask
    down = _sampling(np.arange(rows.start, rows.stop), top, bottom, probabilities.shape[0])
    across = _sampling(np.arange(columns.start, columns.stop), left, right, probabilities.shape[1])
    mask[rows, columns] = down @ probabilities @ across.T > 0.5
    return mask


def _sampling(pixels: IntArray, start: float, end: float, cells: int) -> FloatArray:
    """Weights (pixels, cells) that interpolate cells over [start, end) at pixel centres; outside there is nothing."""
    places = (pixels + 0.5 - start) * (cells / (end - start)) - 0.5
    distances = np.abs(places[:, None] - np.arange(cells))
    weights: FloatArray = np.maximum(1 - distances, 0).astype(np.float32)
    return weights
