"""From an image to the objects in it, around a network in any runtime; numpy alone, so exported files need no torch.

Decoding equals torchvision's `RetinaNet.postprocess_detections` on the same outputs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cyclemlp.data.images import Pixels
from cyclemlp.data.outlines import Patch
from cyclemlp.data.resizing import ResizeRule
from cyclemlp.errors import ConfigError
from cyclemlp.heads.anchors import SIZE_RULE, level_anchors
from cyclemlp.heads.detection_options import MASK_RCNN, MAX_GROWTH, RETINANET, DetectionHead
from cyclemlp.tasks.card import ModelCard

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
RunNetwork = Callable[[FloatArray], tuple[FloatArray, ...]]
"""From normalised images (1, C, H, W) to the network's outputs; it pads images to sizes that the network takes."""

_RAW_OUTPUTS = 2
"""Of RetinaNet, logits and offsets; networks that decode by themselves have boxes, scores and labels."""
_MAX_PASTED_PIXELS = 2**22
"""Pixels of a mask that are computed together, so that a huge box needs little more memory than its mask."""


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found in an image, the top-scoring first; index i of every field is object i."""

    boxes_xyxy: FloatArray
    """(D, 4) left, top, right, bottom in pixels of the image."""
    scores: FloatArray
    """(D,) from 0 to 1."""
    labels: IntArray
    """(D,) class numbers, starting at 0."""
    mask_probabilities: FloatArray | None = None
    """(D, M, M) over each box, for instance segmentation."""

    def select(self, keep: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> "Detections":
        """Some of them, by a mask or by numbers."""
        masks = None if self.mask_probabilities is None else self.mask_probabilities[keep]
        return Detections(self.boxes_xyxy[keep], self.scores[keep], self.labels[keep], masks)

    def shifted(self, right: int, down: int) -> "Detections":
        """In an image that begins this many pixels further left and up."""
        return replace(self, boxes_xyxy=self.boxes_xyxy + np.array([right, down] * 2, dtype=np.float32))

    def mirrored(self, width: int) -> "Detections":
        """In the mirror image, left to right, of an image of `width` pixels."""
        left, top, right, bottom = self.boxes_xyxy.T
        boxes = np.stack([width - right, top, width - left, bottom], axis=1)
        masks = None if self.mask_probabilities is None else self.mask_probabilities[..., ::-1]
        return replace(self, boxes_xyxy=boxes, mask_probabilities=masks)

    @classmethod
    def joined(cls, parts: Sequence["Detections"]) -> "Detections":
        """All of one or more, one after the other; in no particular order."""
        masks = [part.mask_probabilities for part in parts if part.mask_probabilities is not None]
        return cls(
            np.concatenate([part.boxes_xyxy for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate(masks) if masks else None,
        )

    def stricter(self, score_threshold: float, nms: float) -> "Detections":
        """Those of at least this score, after suppression at this overlap."""
        likely = self.select(self.scores >= score_threshold)
        return likely.select(suppress(likely.boxes_xyxy, likely.scores, likely.labels, nms, len(likely.scores)))


def detect(run: RunNetwork, card: ModelCard, pixels: Pixels, rule: ResizeRule | None = None) -> Detections:
    """The objects in an image (H, W, C) of any size, by the network that `card` describes.

    `rule` says how the image is resized, by default as the card has it; boxes are in pixels of the image as given.
    """
    options = card.detection or DetectionHead()
    resized = (rule or card.resize_rule).resized(pixels)
    size = resized.shape[:2]
    outputs = run(np.ascontiguousarray(card.normalised(resized.transpose(2, 0, 1)))[None])
    if len(outputs) == _RAW_OUTPUTS:
        found = decode(outputs[0][0], outputs[1][0], options, size)
    else:
        boxes, scores, labels = outputs[:3]
        masks = outputs[3] if card.head == MASK_RCNN else None
        found = Detections(boxes, scores, labels.astype(np.int64), masks)
        found = found.stricter(options.score_threshold, options.nms)  # the card may say more than the network did
    factors = np.array([pixels.shape[1] / size[1], pixels.shape[0] / size[0]] * 2, dtype=np.float32)
    return replace(found, boxes_xyxy=found.boxes_xyxy * factors)


def refuse_looser(given: DetectionHead, wanted: DetectionHead) -> None:
    """Raise ConfigError where a network that drops boxes by itself, as `given` says, cannot do what is wanted."""
    if wanted.score_threshold < given.score_threshold:
        raise ConfigError(
            f"--score-threshold {wanted.score_threshold:g}: this network drops boxes below {given.score_threshold:g} by"
            " itself; give that or more, or a file exported with --raw"
        )
    if wanted.nms > given.nms:
        raise ConfigError(
            f"--nms {wanted.nms:g}: this network drops boxes that overlap by more than {given.nms:g} by itself; give"
            " that or less, or a file exported with --raw"
        )


def decode(logits: FloatArray, offsets: FloatArray, options: DetectionHead, size: tuple[int, int]) -> Detections:
    """Objects from RetinaNet's raw outputs for an image of `size` (height, width) before padding.

    `logits` (anchors, K) and `offsets` (anchors, 4) are in the order of `level_anchors`.
    """
    boxes, scores, labels, start = [], [], [], 0
    for anchors in level_anchors(RETINANET, options, *map(SIZE_RULE.padded, size)):
        part = slice(start, start + len(anchors))
        rows, classes, likely = _candidates(logits[part], options)
        boxes.append(clipped(apply_offsets(offsets[part][rows], anchors[rows]), size))
        scores.append(likely)
        labels.append(classes)
        start += len(anchors)
    found = Detections(np.concatenate(boxes), np.concatenate(scores), np.concatenate(labels))
    return found.select(suppress(found.boxes_xyxy, found.scores, found.labels, options.nms, options.kept))


def _candidates(logits: FloatArray, options: DetectionHead) -> tuple[IntArray, IntArray, FloatArray]:
    """Rows, classes and scores of a level's top-scoring entries above the threshold, the top-scoring first."""
    flat = logits.reshape(-1)
    # Most entries are far below the threshold: comparing logits spares their exponentials.
    threshold = options.score_threshold
    least = math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else (math.inf if threshold else -math.inf)
    places = np.flatnonzero(flat > least)
    order = np.argsort(-flat[places], kind="stable")[: options.compared]
    chosen = places[order].astype(np.int64)
    scores = (1 / (1 + np.exp(-flat[chosen].astype(np.float64)))).astype(np.float32)
    return chosen // logits.shape[1], chosen % logits.shape[1], scores


def apply_offsets(offsets: FloatArray, anchors: FloatArray) -> FloatArray:
    """Anchors (N, 4) moved by dx, dy in their sizes and grown by exp(dw), exp(dh)."""
    sizes = anchors[:, 2:] - anchors[:, :2]
    centres = anchors[:, :2] + 0.5 * sizes + offsets[:, :2] * sizes
    halves = 0.5 * np.exp(np.minimum(offsets[:, 2:], np.float32(math.log(MAX_GROWTH)))) * sizes
    return np.concatenate([centres - halves, centres + halves], axis=1).astype(np.float32)


def clipped(boxes: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Boxes cut to an image of `size` (height, width)."""
    height, width = size
    return np.clip(boxes, 0, np.array([width, height, width, height], dtype=np.float32))


def suppress(boxes: FloatArray, scores: FloatArray, labels: IntArray, max_overlap: float, count: int) -> IntArray:
    """Indices of the boxes kept, the top-scoring first and at most `count`.

    A box is dropped where a higher-scoring box of its class that is kept overlaps it by more than `max_overlap` (IoU).
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
            overlaps = shared / (areas[best] + areas[order] - shared) > max_overlap
        order = order[~(overlaps & (labels[order] == labels[best]))]
    return np.array(kept, dtype=np.int64)


def paste_patch(probabilities: FloatArray, box_xyxy: FloatArray, size: tuple[int, int]) -> Patch:
    """The mask of an object within its box, in an image of `size` (height, width).

    Probabilities (M, M) over the box are sampled bilinearly at the centres of the pixels; above one half is in it.
    """
    left, top, right, bottom = (float(value) for value in box_xyxy)
    rows = np.arange(max(0, math.floor(top)), min(size[0], math.ceil(bottom)))
    columns = np.arange(max(0, math.floor(left)), min(size[1], math.ceil(right)))
    if bottom <= top or right <= left or not len(rows) or not len(columns):
        return Patch(0, 0, np.zeros((0, 0), dtype=np.uint8))
    across = _sampling(columns, left, right, probabilities.shape[1]).T
    bitmap = np.empty((len(rows), len(columns)), dtype=np.uint8)
    step = max(1, _MAX_PASTED_PIXELS // len(columns))
    for start in range(0, len(rows), step):
        down = _sampling(rows[start : start + step], top, bottom, probabilities.shape[0])
        bitmap[start : start + step] = down @ probabilities @ across > 0.5
    return Patch(int(rows[0]), int(columns[0]), bitmap)


def _sampling(pixels: IntArray, start: float, end: float, cells: int) -> FloatArray:
    """Weights (pixels, cells) that interpolate cells over [start, end) at pixel centres; outside they are 0."""
    places = (pixels + 0.5 - start) * (cells / (end - start)) - 0.5
    distances = np.abs(places[:, None] - np.arange(cells))
    return np.maximum(1 - distances, 0).astype(np.float32)
