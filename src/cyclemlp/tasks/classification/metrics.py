"""Classification: what is minimised, and what is measured."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

TOP = 5
"""With no more classes than this, top-5 accuracy would always be 1."""


class ClassificationMetrics(TypedDict):
    """Shares of images in [0, 1]; None where there are no such images, or no more than five classes."""

    top1: float | None
    top5: float | None
    accuracy: dict[str, float | None]


class Mistake(NamedTuple):
    """An image whose class was predicted wrongly."""

    image: Path
    label: int
    predicted: int
    probability: float
    """Of the predicted class."""


class LabelCounts:
    """Exact counts of images, from which every score follows.

    `counts` (K, K + 1) int64: of the images of each class, how many were predicted as each class, and in the last
    column how many had theirs among the five most probable. Counts add up.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.mistakes: list[Mistake] = []
        self.counts = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Count images by their `scores` (N, K) and class numbers `target` (N,), on any device."""
        scores, target = scores.float().cpu(), target.long().cpu()
        best = scores.topk(min(TOP, self.num_classes), dim=1).indices
        among_best = (best == target[:, None]).any(1)
        one = torch.ones_like(target)
        self.counts.index_put_((target, best[:, 0]), one, accumulate=True)
        self.counts.index_put_((target[among_best], torch.tensor(self.num_classes)), one[among_best], accumulate=True)

    def merge(self, other: "LabelCounts") -> None:
        """Add the counts of `other`, as if its images had been counted here."""
        self.counts += other.counts
        self.mistakes += other.mistakes

    @property
    def confusion(self) -> Tensor:
        """Images by class (row) and prediction (column), (K, K) int64."""
        return self.counts[:, :-1]

    def metrics(self, classes: Sequence[str]) -> ClassificationMetrics:
        """Top-1 and top-5 accuracy, and the accuracy of each class."""
        totals = self.confusion.sum(1).tolist()
        right, among_best = self.confusion.diagonal().tolist(), self.counts[:, -1].tolist()
        images = sum(totals)
        return {
            "top1": sum(right) / images if images else None,
            "top5": sum(among_best) / images if images and self.num_classes > TOP else None,
            "accuracy": {name: r / n if n else None for name, r, n in zip(classes, right, totals, strict=True)},
        }


def classification_loss(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy in float32. `target` holds class numbers (N,), or shares of each class (N, K) after mixing."""
    with torch.autocast(logits.device.type, enabled=False):
        return F.cross_entropy(logits.float(), target, label_smoothing=label_smoothing)


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """How far the student's class shares are from the teacher's, both softened (Hinton et al., 2015), in float32.

    Kullback-Leibler divergence times the squared temperature, which keeps its gradients comparable with those of the
    cross entropy.
    """
    with torch.autocast(logits.device.type, enabled=False):
        student = F.log_softmax(logits.float() / temperature, dim=1)
        teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def most_confused(confusion: Tensor, classes: Sequence[str], limit: int = 10) -> list[tuple[str, str, int]]:
    """The pairs of classes confused most often: (class, predicted class, images), the most frequent first."""
    wrong = confusion.clone().fill_diagonal_(0)
    values, places = wrong.flatten().topk(min(limit, wrong.numel()))
    pairs = [
        (divmod(place, len(classes)), value) for place, value in zip(places.tolist(), values.tolist(), strict=True)
    ]
    return [(classes[row], classes[column], math.floor(value)) for (row, column), value in pairs if value]
