"""Detection and instance segmentation runs: what they learn from, what they minimise, how they are scored."""

import math
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.data.box_transforms import BoxTrainTransform
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.images import read_image
from cyclemlp.data.objects import DetectionDataset, DetectionSamples, DetectionSplit, Record
from cyclemlp.data.transforms import Normalisation
from cyclemlp.errors import DataError
from cyclemlp.heads.detection import build_detector
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.heads.detector import Detector
from cyclemlp.tasks.base import TaskLoss, TrainingTask
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.detection.config import DetectionConfig
from cyclemlp.tasks.detection.decoding import FloatArray, detect, resize_rule
from cyclemlp.tasks.detection.defaults import with_defaults
from cyclemlp.tasks.detection.metrics import DetectionCounts
from cyclemlp.tasks.instance_segmentation.config import InstanceSegmentationConfig
from cyclemlp.tasks.parameter_groups import decay_groups
from cyclemlp.training.evaluation import Evaluator
from cyclemlp.training.trainer import EvaluateRun, train

LOSS_TERMS = {
    "retinanet": ("classification", "bbox_regression"),
    "mask-rcnn": ("objectness", "rpn_box_reg", "classifier", "box_reg", "mask"),
}
"""What each head minimises, under the names it gives them."""
BOX_TERMS = ("bbox_regression", "rpn_box_reg", "box_reg")


def train_detection(config: DetectionConfig, *, evaluate: EvaluateRun | None = None) -> Path:
    """Train, or with `config.resume` continue, and return the run folder.

    An `InstanceSegmentationConfig` trains masks as well. `evaluate` makes the final metrics from the finished run
    folder, by default as the evaluations before. Raises as `train`.
    """
    dataset = find_dataset(config.data, DetectionDataset)
    if not dataset.splits["train"].images:
        raise DataError(f"{config.data} has no training images: put some into its train split")
    if config.head == "mask-rcnn" and not dataset.has_masks:
        raise DataError(f"{config.data} has objects without outlines: train detection with --head retinanet instead")
    config = with_defaults(config, dataset.splits["train"])
    return train(config, lambda: detection_task(config, dataset), evaluate)


def detection_task(config: DetectionConfig, dataset: DetectionDataset) -> TrainingTask:
    """The parts of a run whose image size and anchors are chosen. Raises ConfigError."""
    card = _card(config, dataset)
    model = build_detector(
        config.model,
        config.head,
        len(card.classes),
        head_width=config.head_width,
        options=card.detection,
        drop_path_rate=config.optimisation.drop_path,
    )
    idle = _freeze_batch_norm(model.backbone) if config.optimisation.frozen_batch_norm else []
    transform = BoxTrainTransform(
        config.augmentation,
        Normalisation(),
        resize_rule(card),
        masks=config.head == "mask-rcnn",
    )
    return TrainingTask(
        card,
        model,
        DetectionLoss(config),
        DetectionSamples(dataset.splits["train"], transform),
        DetectionEvaluator(dataset.splits["val"], card),
        partial(decay_groups, weight_decay=config.optimisation.weight_decay),
        idle,
        kinds=shapes(config, dataset.splits["train"]),
        collate=collate,
    )


def _card(config: DetectionConfig, dataset: DetectionDataset) -> ModelCard:
    options = {item.name: getattr(config.detector, item.name) for item in fields(DetectionHead)}
    return ModelCard(
        task="instance-segmentation" if isinstance(config, InstanceSegmentationConfig) else "detection",
        model=config.model,
        head=config.head,
        head_width=config.head_width,
        classes=dataset.classes,
        input_scale=1.0 if config.input_scale is None else config.input_scale,
        short_side=config.short_side,
        long_side=config.long_side,
        detection=DetectionHead(**options),
        source=f"trained by cyclemlp on {config.data.name}",
    )


def shapes(config: DetectionConfig, split: DetectionSplit) -> list[int] | None:
    """Which images are alike in shape, where they are not cut: a batch is filled up to its widest and its highest.

    Seven kinds, from 1 : 2 and narrower to 2 : 1 and wider in steps of a third of an octave; torchvision's references
    group so, too.
    """
    if config.augmentation.crop_size is not None:
        return None
    return [
        round(3 * min(1.0, max(-1.0, math.log2(width / height))))
        for height, width in (record.size for record in split.records)
    ]


def _freeze_batch_norm(backbone: nn.Module) -> list[nn.Module]:
    norms: list[nn.Module] = [part for part in backbone.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.requires_grad_(False)
    return norms


def collate(items: Sequence[tuple[Tensor, dict[str, Tensor]]]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Images filled up with zeros to a common size, and their targets, to which `size` (height, width) is added.

    Masks are filled up as the images are.
    """
    height, width = (max(image.shape[axis] for image, _ in items) for axis in (-2, -1))
    images, targets = [], []
    for image, target in items:
        fill = (0, width - image.shape[-1], 0, height - image.shape[-2])
        images.append(F.pad(image, fill))
        masks = {"masks": F.pad(target["masks"], fill)} if "masks" in target else {}
        targets.append({**target, **masks, "size": torch.tensor(image.shape[-2:])})
    return torch.stack(images), targets


class DetectionLoss(TaskLoss):
    """The terms of the detector's loss, added up."""

    def __init__(self, config: DetectionConfig) -> None:
        super().__init__()
        self.terms = LOSS_TERMS[config.head]
        self._box_weight = config.loss.box_weight

    def forward(self, model: nn.Module, images: Tensor, targets: Any) -> dict[str, Tensor]:
        """Of images (B, C, H, W) and the targets that `collate` makes; boxes without area are left out."""
        assert isinstance(model, Detector)
        sizes = [(int(height), int(width)) for height, width in (target["size"] for target in targets)]
        terms = model.losses(images, sizes, [_with_area(target) for target in targets])
        weighted = [self._box_weight * term if name in BOX_TERMS else term for name, term in terms.items()]
        return {"loss": torch.stack(weighted).sum(), **terms}


def _with_area(target: dict[str, Tensor]) -> dict[str, Tensor]:
    boxes = target["boxes"]
    keep = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return {name: values[keep] for name, values in target.items() if name != "size"}


class DetectionEvaluator(Evaluator):
    """Objects found in a split, each image as in prediction."""

    def __init__(self, split: DetectionSplit, card: ModelCard) -> None:
        super().__init__(len(split.images), card.classes)
        self._split = split
        self._card = card

    def no_counts(self) -> DetectionCounts:
        """Nothing found yet."""
        masks = self._card.task == "instance-segmentation"
        return DetectionCounts(masks=masks, most=(self._card.detection or DetectionHead()).kept)

    def count_some(
        self, counts: DetectionCounts, model: nn.Module, device: torch.device, indices: Sequence[int]
    ) -> None:
        """Add the objects of these images. Raises DataError for a file that is not usable."""

        def run(images: FloatArray) -> tuple[FloatArray, ...]:
            return tuple(output.float().cpu().numpy() for output in model(torch.from_numpy(images).to(device)))

        for index in indices:
            record: Record = self._split.records[index]
            found = detect(run, self._card, np.ascontiguousarray(read_image(self._split.images[index])))
            counts.add(record, found, range(1, len(self.classes) + 1))
