"""The boxes a detection head starts from; without torch, as exported networks need them.

They lie as in the authors' detector (mmdetection's): a level's anchors are centred on the multiples of its stride.
torchvision's own generator takes the stride from the sizes of image and map instead, 61 in place of 64 for a map of
13 rows over 800 pixels, and rounds the edges, which matters where anchors are a few pixels wide.
"""

from collections.abc import Sequence

import numpy as np

from cyclemlp.heads.detection_options import STRIDES, DetectionHead
from cyclemlp.heads.network import STRIDE, FloatArray, SizeRule

SIZE_RULE = SizeRule(STRIDE, STRIDE)
"""Detectors see images padded to multiples of 32, so that every level's stride is exact."""


def cell_anchors(edge: float, scales: Sequence[float], ratios: Sequence[float]) -> FloatArray:
    """Anchors (A, 4) of one position, x0 y0 x1 y1 around 0, those of a ratio next to each other.

    `edge` is that of the square anchor of scale 1; `ratios` are height by width at constant area.
    """
    factors = np.sqrt(np.array(ratios, dtype=np.float64))
    heights, widths = (np.outer(each, scales).reshape(-1) * edge for each in (factors, 1 / factors))
    return (np.stack([-widths, -heights, widths, heights], axis=1) / 2).astype(np.float32)


def grid_sizes(head: str, height: int, width: int) -> list[tuple[int, int]]:
    """Rows and columns of each level's map for a padded image."""
    return [(-(-height // stride), -(-width // stride)) for stride in STRIDES[head]]


def level_anchors(head: str, options: DetectionHead, height: int, width: int) -> list[FloatArray]:
    """Anchors (rows * columns * A, 4) of each level for a padded image, row by row."""
    levels = []
    for stride, (rows, columns) in zip(STRIDES[head], grid_sizes(head, height, width), strict=True):
        cell = cell_anchors(options.edge(head) * stride, options.scales(head), options.anchor_ratios)
        y, x = np.meshgrid(np.arange(rows) * stride, np.arange(columns) * stride, indexing="ij")
        places = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4).astype(np.float32)
        levels.append((places + cell).reshape(-1, 4))
    return levels
