"""The objects of an image from several passes of the network: at other sizes, mirrored, and in windows.

The objects that all passes find are put together, and among overlapping ones of a class the top-scoring is kept
(non-maximum suppression at the overlap of the model card), with the box, score and mask of its own pass. Nothing is
averaged, so scores keep their meaning; a further pass can only add objects or replace one by a higher-scoring one.

A window cuts objects at its border. Windows therefore overlap, and an object that touches a border inside the image is
left to the neighbouring window wherever that sees more of it. Objects smaller than the overlap are always seen whole by
some window. Larger ones may remain in pieces; a piece gives way to a whole object that covers it, seen at a smaller
scale for example.
"""

import math

import numpy as np
import numpy.typing as npt

from cyclemlp.data.resizing import ResizeRule
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.tasks.base import FloatArray, Look, NetworkImage, Span
from cyclemlp.tasks.detection.decoding import Detections, detect, suppress
from cyclemlp.tasks.detection.result import DetectionResult

TOUCH = 4.0
"""Network pixels from a border within which a box counts as touching it: half the finest stride."""
COVERED = 0.8
"""Share of a piece's box that a whole object must cover for the piece to be a part of it."""

Flags = npt.NDArray[np.bool_]


def find_objects(image: NetworkImage) -> DetectionResult:
    """The objects in an image of any size; at most as many as the card keeps, per window where there are several."""
    options = image.card.detection or DetectionHead()
    looks = image.looks()
    found, cut = zip(*(_seen(image, look) for look in image.in_turn(looks)), strict=True)
    detections = found[0]
    if len(found) > 1:
        limit = options.kept * max(map(len, looks))
        detections = merged(Detections.joined(found), np.concatenate(cut), options.nms, limit)
    return DetectionResult(detections, image.card.classes, image.pixels)


def _seen(image: NetworkImage, look: Look) -> tuple[Detections, Flags]:
    """What a look finds, in pixels of the image, without what neighbours see better; and which of it is cut."""
    part = image.pixels[look.rows.start : look.rows.stop, look.columns.start : look.columns.stop]
    shown = part[:, ::-1] if look.view.flipped else part
    found = detect(image.run, image.card, shown, ResizeRule(look.scale))
    if look.view.flipped:
        found = found.mirrored(part.shape[1])
    found = found.shifted(look.columns.start, look.rows.start)
    margin = TOUCH / look.scale
    cut_across, left_across = _at_borders(found.boxes_xyxy[:, 0::2], look.columns, margin)
    cut_down, left_down = _at_borders(found.boxes_xyxy[:, 1::2], look.rows, margin)
    stays = ~(left_across | left_down)
    return found.select(stays), (cut_across | cut_down)[stays]


def _at_borders(extents: FloatArray, span: Span, margin: float) -> tuple[Flags, Flags]:
    """Which of the `extents` (N, 2) touch a border inside the image, and which of these a neighbour sees better.

    A neighbour sees it better where it sees the other end as well. Two neighbours never leave an object to each other.
    """
    starts, ends = extents.T
    at_start = (starts <= span.start + margin) & (span.seen_before > -math.inf)
    at_end = (ends >= span.stop - margin) & (span.seen_after < math.inf)
    better_before = at_start & (ends < span.seen_before - margin)
    better_after = at_end & (starts > span.seen_after + margin)
    return at_start | at_end, better_before | better_after


def merged(found: Detections, cut: Flags, max_overlap: float, limit: int) -> Detections:
    """One of each object, the top-scoring first; `cut` says which were seen in part."""
    stays = ~(cut & _covered(found, cut))
    found = found.select(stays)
    return found.select(suppress(found.boxes_xyxy, found.scores, found.labels, max_overlap, limit))


def _covered(found: Detections, cut: Flags) -> Flags:
    """Which of the pieces lie mostly in one whole object of their class."""
    covered = np.zeros_like(cut)
    whole = found.select(~cut)
    for i in np.flatnonzero(cut):
        box = found.boxes_xyxy[i]
        edges = np.minimum(box[2:], whole.boxes_xyxy[:, 2:]) - np.maximum(box[:2], whole.boxes_xyxy[:, :2])
        shared = np.maximum(edges, 0).prod(axis=1) * (whole.labels == found.labels[i])
        covered[i] = (shared >= COVERED * (box[2:] - box[:2]).prod()).any()
    return covered
