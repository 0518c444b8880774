"""What a detection or instance segmentation run trains: network, loss and samples."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.data.box_transforms import BoxTrainTransform
from cyclemlp.data.datasets import SplitSamples
from cyclemlp.data.objects import DetectionDataset, DetectionSplit
from cyclemlp.data.transforms import Normalisation
from cyclemlp.errors import DataError
from cyclemlp.heads.detection_options import MASK_RCNN, RETINANET
from cyclemlp.heads.detector import Detector
from cyclemlp.tasks.base import TrainingParts
from cyclemlp.tasks.card import ModelCard, build_model
from cyclemlp.tasks.detection.config import DetectionConfig
from cyclemlp.tasks.detection.defaults import with_defaults
from cyclemlp.tasks.loss import TaskLoss
from cyclemlp.tasks.parameter_groups import decay_groups

ConfigT = TypeVar("ConfigT", bound=DetectionConfig)

LOSS_TERMS = {
    RETINANET: ("classification", "bbox_regression"),
    MASK_RCNN: ("objectness", "rpn_box_reg", "classifier", "box_reg", "mask"),
}
"""What each head minimises, under its own names."""
BOX_TERMS = ("bbox_regression", "rpn_box_reg", "box_reg")


def resolved(config: ConfigT, dataset: DetectionDataset) -> ConfigT:
    """The config with image size, anchors and number of boxes chosen from the labels. Raises DataError."""
    if not dataset.splits["train"].images:
        raise DataError(f"{config.data} has no training images: put some into its train split")
    if config.head == MASK_RCNN and not dataset.has_masks:
        raise DataError(f"{config.data} has objects without outlines: train detection with --head retinanet instead")
    return with_defaults(config, dataset.splits["train"])


def detection_parts(config: DetectionConfig, dataset: DetectionDataset, task: str) -> TrainingParts:
    """Network, loss and samples of a run whose config is resolved. Raises ConfigError."""
    head = config.detector.as_head()
    scale, ids = config.input_scale or 1.0, dataset.category_ids
    card = ModelCard.of_run(task, config, dataset, detection=head, input_scale=scale, category_ids=ids)
    model = build_model(card, config.optimisation.drop_path)
    frozen = _freeze_batch_norm(model.get_submodule("backbone")) if config.optimisation.frozen_batch_norm else []
    masks = config.head == MASK_RCNN
    transform = BoxTrainTransform(
        config.augmentation, Normalisation(card.mean, card.std), card.resize_rule, masks=masks
    )
    samples = SplitSamples(replace(dataset.splits["train"], rule=card.pixel_rule), transform)
    groups = partial(decay_groups, weight_decay=config.optimisation.weight_decay)
    aspects = aspect_groups(config, dataset.splits["train"])
    loss = DetectionLoss(config)
    return TrainingParts(card, model, loss, samples, groups, collate, frozen, aspect_groups=aspects)


def aspect_groups(config: DetectionConfig, split: DetectionSplit) -> list[int] | None:
    """The group of aspect ratios of each image, where images are not cropped: batches are padded to a common size.

    Seven groups, from 1 : 2 and narrower to 2 : 1 and wider in steps of a third of an octave; torchvision's references
    group in the same way.
    """
    if config.augmentation.crop_edge is not None:
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
    """Images padded with zeros to a common size, and their targets, to which `size` (height, width) is added.

    Masks are padded as the images are.
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
    ignored = {name: target[name] for name in ("ignored",) if name in target}
    return {name: values[keep] for name, values in target.items() if name not in ("size", "ignored")} | ignored
