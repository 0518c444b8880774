"""Whether the objects of an exported detector follow from its raw outputs, by the arithmetic that training used."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from cyclemlp.errors import ConfigError
from cyclemlp.heads.anchors import SIZE_RULE, level_anchors
from cyclemlp.heads.detection_options import MASK_RCNN, DetectionHead
from cyclemlp.heads.mask_rcnn import MaskRCNN
from cyclemlp.heads.network import FloatArray
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.detection.decoding import Detections, decode

BOX_LIMIT = 0.1
"""Pixels."""
SCORE_LIMIT = 1e-4
"""Of scores, and of the probabilities that pixels are in masks."""
ROUNDED_SHARE = 0.01
"""Of the objects, that may be kept or dropped otherwise: at a threshold it is a matter of rounding."""

Outputs = Mapping[str, FloatArray]
"""Of the file, by name."""


def check_objects(model: nn.Module, card: ModelCard, outputs: Outputs, size: tuple[int, int]) -> None:
    """Raise ConfigError where the objects in an image of `size` (height, width) are not what the raw outputs say."""
    options = card.detection or DetectionHead()
    found = Detections(outputs["boxes"], outputs["scores"], outputs["labels"].astype(np.int64))
    if isinstance(model, MaskRCNN):
        agrees, advice = _follow_from_regions(model, options, found, outputs, size), "predict with the run folder"
    else:
        agrees = _agree(found, decode(outputs["logits"][0], outputs["offsets"][0], options, size))
        advice = "export with --raw"
    if not agrees:
        raise ConfigError(
            f"the exported file finds other objects than its raw outputs say, for {size[0]} x {size[1]}: nothing was"
            f" written; {advice}"
        )


def _follow_from_regions(
    model: MaskRCNN, options: DetectionHead, found: Detections, outputs: Outputs, size: tuple[int, int]
) -> bool:
    """Whether regions, objects and masks are those that torchvision makes of the values they were made from."""
    values = {name: torch.from_numpy(outputs[name]) for name in ("regions", *model.value_names)}
    regions = values["regions"][:-1]  # the last is the whole image
    levels = level_anchors(MASK_RCNN, options, *map(SIZE_RULE.padded, size))
    moved = model.rpn.box_coder.decode(values["moves"], [torch.from_numpy(np.concatenate(levels))]).view(1, -1, 4)
    (proposals,), _ = model.rpn.filter_proposals(moved, values["objectness"], [size], list(map(len, levels)))
    given = values["logits"][:-1], values["offsets"][:-1], [regions], [size]
    (boxes,), (scores,), (labels,) = model.roi_heads.postprocess_detections(*given)
    masks = values["mask_logits"][torch.arange(len(found.labels)), torch.from_numpy(found.labels) + 1].sigmoid()
    return (
        _agree(_as_objects(regions), _as_objects(proposals))
        and _agree(found, Detections(boxes.numpy(), scores.numpy(), labels.numpy() - 1))
        and np.array_equal(found.boxes_xyxy, outputs["places"][:-1])
        and np.allclose(outputs["masks"], masks.numpy(), rtol=0, atol=SCORE_LIMIT)
    )


def _as_objects(regions: Tensor) -> Detections:
    """Regions (R, 4) as objects of one class."""
    count = len(regions)
    return Detections(regions.numpy(), np.ones(count, dtype=np.float32), np.zeros(count, dtype=np.int64))


def _agree(found: Detections, wanted: Detections) -> bool:
    """Whether both have the same objects, except for a share of them that is left to rounding."""
    count = len(wanted.scores)
    least = (1 - ROUNDED_SHARE) * count
    return least <= len(found.scores) <= count / (1 - ROUNDED_SHARE) and shared(found, wanted) >= least


def shared(found: Detections, wanted: Detections) -> int:
    """How many of the wanted objects are found: with their class, within 0.1 pixel and a score of 0.0001."""
    if not len(found.scores):
        return 0
    apart = np.abs(found.boxes_xyxy - wanted.boxes_xyxy[:, None]).max(axis=2) < BOX_LIMIT
    apart &= np.abs(found.scores - wanted.scores[:, None]) < SCORE_LIMIT
    apart &= found.labels == wanted.labels[:, None]
    return int(apart.any(axis=1).sum())
