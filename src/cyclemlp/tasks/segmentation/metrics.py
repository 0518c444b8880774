"""Semantic segmentation: what is minimised, and what is measured."""

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from cyclemlp.data.masks import IGNORE_INDEX
from cyclemlp.errors import ConfigError, DataError, did_you_mean
from cyclemlp.tasks.segmentation.areas import MAX_CLASSES, ValidationCounts

_POWERS = {"none": 0.0, "fourth-root-inverse": -0.25, "sqrt-inverse": -0.5, "inverse": -1.0}


class SegmentationMetrics(TypedDict):
    """Scores in [0, 1]; None where nothing was counted."""

    mIoU: float | None
    IoU: dict[str, float | None]
    pixel_accuracy: float | None


class ConfusionMatrix:
    """Exact pixel counts, `counts[target, prediction]`, int64, from which every score follows.

    Counts add up, so scores do not depend on how pixels were spread over images, batches or processes.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self._units: dict[str, npt.NDArray[np.int64]] = {}

    def update(self, prediction: Tensor, target: Tensor, unit: str | None = None) -> None:
        """Count pixels of `prediction` and `target`: class ids, any integer type, equal shapes, any device.

        `unit` names what errs together, such as an image, where areas are to have intervals.

        Pixels whose target is the ignore index do not count. Raises DataError for a target outside the
        classes, ValueError for a prediction outside them or for unequal shapes.
        """
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ")
        counted = target != IGNORE_INDEX
        target, prediction = target[counted].long(), prediction[counted].long()
        self._check(prediction, target)
        cells = self.num_classes**2
        counts = torch.bincount(target.mul_(self.num_classes).add_(prediction), minlength=cells)
        counts = counts.view(self.num_classes, self.num_classes).cpu()
        self.counts += counts
        if unit is not None and self.num_classes <= MAX_CLASSES:
            self._units[unit] = self._units.get(unit, 0) + counts.numpy()

    def validation_counts(self) -> ValidationCounts | None:
        """What the intervals of areas need; None where nothing was counted by units."""
        return ValidationCounts.of_units(list(self._units.values())) if self._units else None

    def _check(self, prediction: Tensor, target: Tensor) -> None:
        if not target.numel():
            return
        highest = self.num_classes - 1
        if int(target.max()) > highest or int(target.min()) < 0:
            worst = int(target.max()) if int(target.max()) > highest else int(target.min())
            raise DataError(
                f"mask value {worst} is not a class: allowed are 0 to {highest}, and {IGNORE_INDEX} for"
                " pixels to ignore; correct the mask or list the missing classes"
            )
        if int(prediction.max()) > highest or int(prediction.min()) < 0:
            raise ValueError(f"predictions must lie in 0 to {highest}")

    def merge(self, other: "ConfusionMatrix") -> None:
        """Add the counts of `other`, as if its pixels had been counted here."""
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge {other.num_classes} classes into {self.num_classes}")
        self.counts += other.counts
        for unit, counts in other._units.items():
            self._units[unit] = self._units.get(unit, 0) + counts

    def constant_miou(self) -> float | None:
        """The mean IoU of the best image of one class, None without pixels; classes that are absent do not count."""
        targets = self.counts.sum(1)
        total, present = int(targets.sum()), int((targets > 0).sum())
        return int(targets.max()) / total / present if total else None

    def metrics(self, classes: Sequence[str]) -> SegmentationMetrics:
        """Intersection over union per class, their mean, and the share of right pixels, each in [0, 1].

        A class in neither targets nor predictions has no IoU: None, and it is left out of the mean.
        """
        if len(classes) != self.num_classes:
            raise ValueError(f"{len(classes)} names for {self.num_classes} classes")
        counts = self.counts.double()
        right = counts.diagonal()
        union = counts.sum(0) + counts.sum(1) - right
        iou = [(right[i] / union[i]).item() if union[i] else None for i in range(self.num_classes)]
        present = [value for value in iou if value is not None]
        return {
            "mIoU": math.fsum(present) / len(present) if present else None,
            "IoU": dict(zip(classes, iou, strict=True)),
            "pixel_accuracy": (right.sum() / counts.sum()).item() if present else None,
        }


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    class_weights: Tensor | None = None,
    *,
    dice_weight: float = 0.0,
    auxiliary: tuple[Tensor, float] | None = None,
) -> dict[str, Tensor]:
    """The training loss and its terms, computed in float32 whatever the precision of the network.

    `logits` (N, K, H, W), `target` (N, H, W) int64 class ids, `class_weights` (K,), `auxiliary` the logits of an
    auxiliary head and the weight of their cross entropy. Returns scalars: `cross_entropy`, `dice` where `dice_weight`
    is not 0, `auxiliary` where it is given, and `loss`, their weighted sum. A batch with nothing but ignored pixels has
    loss 0 and zero gradients.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        terms = {"cross_entropy": _cross_entropy(logits, target, class_weights)}
        loss = terms["cross_entropy"]
        if dice_weight:
            terms["dice"] = _dice(logits, target)
            loss = loss + dice_weight * terms["dice"]
        if auxiliary is not None:
            terms["auxiliary"] = _cross_entropy(auxiliary[0].float(), target, class_weights)
            loss = loss + auxiliary[1] * terms["auxiliary"]
    return {"loss": loss, **terms}


def _cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """Mean over counted pixels, weighted; the library's own mean is 0 / 0 where every pixel is ignored."""
    total = F.cross_entropy(logits, target, weights, ignore_index=IGNORE_INDEX, reduction="sum")
    counted = target != IGNORE_INDEX
    if weights is None:
        return total / counted.sum().clamp_min(1)
    mass = (weights[torch.where(counted, target, 0)] * counted).sum()
    return total / mass.clamp_min(torch.finfo(torch.float32).tiny)


def _dice(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the mean Dice overlap of the classes present in the batch.

    Every present class counts the same however few pixels it has, which is what rare classes need. Absent
    classes are left out: their overlap is 0 whatever the network says.
    """
    counted = (target != IGNORE_INDEX).unsqueeze(1)
    probabilities = logits.softmax(1) * counted
    wanted = torch.zeros_like(probabilities).scatter_(1, torch.where(counted, target.unsqueeze(1), 0), 1.0)
    wanted = wanted * counted
    sizes = wanted.sum((0, 2, 3))
    overlap = 2 * (probabilities * wanted).sum((0, 2, 3)) / (probabilities.sum((0, 2, 3)) + sizes).clamp_min(1)
    present = (sizes > 0).float()
    return ((1 - overlap) * present).sum() / present.sum().clamp_min(1)


def class_weights_from_counts(counts: Sequence[int], mode: str = "sqrt-inverse") -> Tensor:
    """Loss weight of each class, (K,) float32 with mean 1, from its number of pixels.

    `none` weighs all alike, `inverse` by 1 / count, `sqrt-inverse` by its square root, `fourth-root-inverse` by
    the root of that. A class without a single pixel gets 1: it never meets the loss. Raises ConfigError for
    another mode.
    """
    if mode not in _POWERS:
        near = did_you_mean(mode, _POWERS)
        raise ConfigError(f"class weights {mode!r}: allowed are {', '.join(_POWERS)}.{near}")
    weights = torch.ones(len(counts), dtype=torch.float64)
    pixels = torch.tensor(list(counts), dtype=torch.float64)
    present = pixels > 0
    if present.any():
        raw = pixels[present] ** _POWERS[mode]
        weights[present] = raw / raw.mean()
    return weights.float()
