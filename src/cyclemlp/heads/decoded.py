"""RetinaNet with everything after it that predicting needs: the form in which it is exported.

The arithmetic is that of `cyclemlp.tasks.detection.decoding`, in torch, so that exporters can follow it.
`decoded_mask_rcnn.py` is made of the same parts.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from cyclemlp.heads.anchors import SIZE_RULE, cell_anchors
from cyclemlp.heads.detection_options import MAX_GROWTH, RETINANET, STRIDES, DetectionHead

DECODED_NAMES = ("boxes", "scores", "labels")
"""Of the outputs that a reader of the file needs."""


class DecodedRetinaNet(nn.Module):
    """From one normalised image (1, C, H, W) of any size to its objects, and the raw outputs they were made from.

    Args:
        network: the raw outputs `logits` (1, anchors, K) and `offsets` (1, anchors, 4) of padded images.
        options: anchors and thresholds.
        num_classes: logits of an anchor.
    """

    def __init__(self, network: nn.Module, options: DetectionHead, num_classes: int) -> None:
        super().__init__()
        self.network, self.options = network, options
        self.candidates = AnchorCandidates(RETINANET, options, num_classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Boxes (D, 4) in pixels of the image, scores (D,) and labels (D,), the top-scoring first; logits; offsets."""
        size = image.shape[-2:]
        images = padded(image)
        logits, offsets = self.network(images)
        levels = self.candidates(logits[0], offsets[0], images.shape[-2:])
        boxes, scores, labels = (torch.cat(each) for each in zip(*levels, strict=True))
        boxes, scores = clipped(boxes, size), scores.sigmoid()
        likely = torch.nonzero(scores > self.options.score_threshold)[:, 0]
        boxes, scores, labels = boxes[likely], scores[likely], labels[likely]
        kept = suppressed(boxes, scores, labels, size, self.options.nms)[: self.options.kept]
        return boxes[kept], scores[kept], labels[kept], logits, offsets


class AnchorCandidates(nn.Module):
    """The top-scoring entries of each level of a network that has values for anchors."""

    def __init__(self, head: str, options: DetectionHead, num_classes: int) -> None:
        super().__init__()
        self.strides, self.compared, self.num_classes = STRIDES[head], options.compared, num_classes
        for stride in self.strides:
            cell = cell_anchors(options.edge(head) * stride, options.scales(head), options.anchor_ratios)
            self.register_buffer(f"cell_{stride}", torch.from_numpy(cell))

    def forward(self, logits: Tensor, offsets: Tensor, size: Sequence[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes (N, 4), logits (N,) and labels (N,) of each level, the top-scoring first.

        Of `logits` (anchors, K) and `offsets` (anchors, 4) for an image that was padded to `size` (height, width).
        """
        found, start = [], 0
        for stride in self.strides:
            anchors, count = self._anchors(stride, size)
            entries = logits[start : start + count].reshape(-1)
            moves = offsets[start : start + count]
            start = start + count
            best, places = torch.topk(entries, torch.sym_min(self.compared, count * self.num_classes))
            rows = places // self.num_classes
            found.append((_moved(anchors[rows], moves[rows]), best, places % self.num_classes))
        return found

    def _anchors(self, stride: int, size: Sequence[int]) -> tuple[Tensor, int]:
        """Those of a level, as `level_anchors` has them, and how many there are."""
        cell = self.get_buffer(f"cell_{stride}")
        rows, columns = ((edge + stride - 1) // stride for edge in size)
        y = (torch.arange(rows, device=cell.device) * stride)[:, None].expand(rows, columns)
        x = (torch.arange(columns, device=cell.device) * stride)[None].expand(rows, columns)
        places = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4).to(cell.dtype)
        return (places + cell).reshape(-1, 4), rows * columns * len(cell)


def padded(image: Tensor) -> Tensor:
    """An image (1, C, H, W) with zeros at right and bottom; as `SIZE_RULE.padded`, for sizes that are symbols."""
    multiple = SIZE_RULE.multiple
    height, width = image.shape[-2:]
    down, right = ((edge + multiple - 1) // multiple * multiple - edge for edge in (height, width))
    return F.pad(image, (0, right, 0, down))


def clipped(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Boxes (N, 4) cut to an image of `size` (height, width)."""
    height, width = size
    edges = (width, height, width, height)
    return torch.stack([boxes[:, axis].clamp(0, edge) for axis, edge in enumerate(edges)], dim=1)


def suppressed(boxes: Tensor, scores: Tensor, groups: Tensor, size: Sequence[int], max_overlap: float) -> Tensor:
    """Indices of the boxes (N, 4) in an image of `size` that are kept, the top-scoring first.

    Boxes are compared with those of their group (N,) alone: each group lies in a place of its own.
    """
    apart = groups.to(boxes.dtype) * (cast("int", torch.sym_max(*size)) + 1)
    return cast("Tensor", nms(boxes + apart[:, None], scores, max_overlap))


def _moved(anchors: Tensor, offsets: Tensor) -> Tensor:
    """Anchors (N, 4) moved by dx, dy in their sizes and grown by exp(dw), exp(dh)."""
    sizes = anchors[:, 2:] - anchors[:, :2]
    centres = anchors[:, :2] + 0.5 * sizes + offsets[:, :2] * sizes
    halves = 0.5 * torch.exp(offsets[:, 2:].clamp(max=math.log(MAX_GROWTH))) * sizes
    return torch.cat([centres - halves, centres + halves], dim=1)
