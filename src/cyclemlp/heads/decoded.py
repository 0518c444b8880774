"""RetinaNet with everything after it that predicting needs: the form in which it is exported.

The arithmetic is that of `cyclemlp.tasks.detection.decoding`, in torch, so that exporters can follow it.
"""

import math
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
        self.network, self.options, self.num_classes = network, options, num_classes
        for stride in STRIDES[RETINANET]:
            edge = options.edge(RETINANET) * stride
            cell = cell_anchors(edge, options.scales(RETINANET), options.anchor_ratios)
            self.register_buffer(f"cell_{stride}", torch.from_numpy(cell))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Boxes (D, 4) in pixels of the image, scores (D,) and labels (D,), the top-scoring first; logits; offsets."""
        height, width = image.shape[-2:]
        padded = [_padded(edge) for edge in (height, width)]
        logits, offsets = self.network(F.pad(image, (0, padded[1] - width, 0, padded[0] - height)))
        boxes, scores, labels = self._candidates(logits[0], offsets[0], padded)
        boxes = torch.stack(
            [boxes[:, axis].clamp(0, edge) for axis, edge in enumerate((width, height, width, height))], dim=1
        )
        likely = torch.nonzero(scores > self.options.score_threshold)[:, 0]
        boxes, scores, labels = boxes[likely], scores[likely], labels[likely]
        # Classes are compared apart from each other: each lies in a place of its own.
        apart = labels.to(boxes.dtype) * (cast("int", torch.sym_max(height, width)) + 1)
        kept = nms(boxes + apart[:, None], scores, self.options.nms)[: self.options.kept]
        return boxes[kept], scores[kept], labels[kept], logits, offsets

    def _candidates(self, logits: Tensor, offsets: Tensor, padded: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels of the top-scoring entries of each level."""
        found, start = [], 0
        for stride in STRIDES[RETINANET]:
            anchors, count = self._anchors(stride, padded)
            entries = logits[start : start + count].reshape(-1)
            moves = offsets[start : start + count]
            start = start + count
            best, places = torch.topk(entries, torch.sym_min(self.options.compared, count * self.num_classes))
            rows = places // self.num_classes
            found.append((_moved(anchors[rows], moves[rows]), best.sigmoid(), places % self.num_classes))
        boxes, scores, labels = zip(*found, strict=True)
        return torch.cat(boxes), torch.cat(scores), torch.cat(labels)

    def _anchors(self, stride: int, padded: list[int]) -> tuple[Tensor, int]:
        """Those of a level, as `level_anchors` has them, and how many there are."""
        cell = self.get_buffer(f"cell_{stride}")
        rows, columns = ((edge + stride - 1) // stride for edge in padded)
        y = (torch.arange(rows, device=cell.device) * stride)[:, None].expand(rows, columns)
        x = (torch.arange(columns, device=cell.device) * stride)[None].expand(rows, columns)
        places = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4).to(cell.dtype)
        return (places + cell).reshape(-1, 4), rows * columns * len(cell)


def _padded(edge: int) -> int:
    """The edge that the network sees; as `SIZE_RULE.padded`, for symbols."""
    multiple = SIZE_RULE.multiple
    return (edge + multiple - 1) // multiple * multiple


def _moved(anchors: Tensor, offsets: Tensor) -> Tensor:
    """Anchors (N, 4) moved by dx, dy in their sizes and grown by exp(dw), exp(dh)."""
    sizes = anchors[:, 2:] - anchors[:, :2]
    centres = anchors[:, :2] + 0.5 * sizes + offsets[:, :2] * sizes
    halves = 0.5 * torch.exp(offsets[:, 2:].clamp(max=math.log(MAX_GROWTH))) * sizes
    return torch.cat([centres - halves, centres + halves], dim=1)
