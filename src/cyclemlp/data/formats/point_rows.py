"""Rows of points in YOLO's files that are no plain outlines: oriented boxes, and boxes with keypoints."""

import numpy as np
import numpy.typing as npt

from cyclemlp.data.objects import DetectionSplit
from cyclemlp.data.outlines import Polygons

_BOX_VALUES = 4
_FEWEST_ROWS, _FEWEST_POINTS = 3, 3
"""Fewer rows, or boxes with fewer keypoints, may as well be outlines."""
_BESIDE = 0.02
"""Share of the edge of the image by which a keypoint may lie beside its box."""
_FILLED = 0.3
"""Share of their boxes that keypoints span. A box that is made of two neighbouring corners of an outline is larger."""


def are_oriented(split: DetectionSplit) -> bool:
    """Whether all objects are rectangles by their corners, some of them turned."""
    outlines = [outline for record in split.records for outline in record.segmentations]
    if not outlines or not all(isinstance(outline, Polygons) and outline.rings[0].size == 8 for outline in outlines):
        return False
    corners = np.stack([outline.rings[0].reshape(4, 2) for outline in outlines if isinstance(outline, Polygons)])
    diagonals, middles = corners[:, :2] - corners[:, 2:], corners[:, :2] + corners[:, 2:]
    lengths = np.linalg.norm(diagonals, axis=-1)
    slack = 1 + 0.02 * lengths.max(axis=1)
    rectangles = (np.abs(lengths[:, 0] - lengths[:, 1]) <= slack) & (np.ptp(middles, axis=1).max(axis=-1) <= 2 * slack)
    edges = np.abs(corners[:, 1] - corners[:, 0])
    return bool(rectangles.all() and (edges.min(axis=1) > slack).any())


def keypoint_shape(split: DetectionSplit) -> tuple[int, int] | None:
    """The number of keypoints, and of values of each, if all outlines are boxes and as many points that fill them."""
    rows = [
        outline.rings[0] / np.tile(record.size[::-1], outline.rings[0].size // 2)
        for record in split.records
        for outline in record.segmentations
        if isinstance(outline, Polygons)
    ]
    if len(rows) < _FEWEST_ROWS or len({row.size for row in rows}) > 1:
        return None
    boxes, points = np.split(np.stack(rows), [_BOX_VALUES], axis=1)
    for values in (2, 3):
        count = points.shape[1] // values
        if count * values == points.shape[1] and count >= _FEWEST_POINTS:
            shaped = points.reshape(len(rows), count, values)
            if _fill(shaped[..., :2], boxes) and np.isin(shaped[..., 2:], (0, 1)).all():
                return count, values
    return None


def _fill(points: npt.NDArray[np.float64], boxes: npt.NDArray[np.float64]) -> bool:
    """Whether points (N, K, 2) lie in boxes (N, 4) around (cx, cy), and span them; (0, 0) has no label."""
    centres, sizes = boxes[:, :2], boxes[:, 2:]
    labelled = (points > 0).any(axis=-1, keepdims=True)
    inside = np.abs(points - centres[:, None]) <= sizes[:, None] / 2 + _BESIDE
    first, last = (np.where(labelled, points, far) for far in (np.inf, -np.inf))
    spans = (last.max(axis=1) - first.min(axis=1)).clip(0).prod(axis=1)
    return bool((inside | ~labelled).all() and np.median(spans / sizes.prod(axis=1).clip(1e-9)) >= _FILLED)
