"""What a classification run trains: network, loss and samples."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.mixup import Mixup
from torch import Tensor, nn
from torch.utils.data import default_collate

from cyclemlp.data.datasets import ClassifiedDataset, ClassifiedSplit, SplitSamples
from cyclemlp.data.images import Pixels, image_size
from cyclemlp.data.resizing import SquareRule, whole_square
from cyclemlp.data.sampling import evenly_spaced
from cyclemlp.data.transforms import COLOURS, drawn_turns, seeded_by_torch
from cyclemlp.models.classifiers import check_image_size
from cyclemlp.tasks.base import TrainingParts
from cyclemlp.tasks.card import IMAGENET_MEAN, ModelCard, build_model
from cyclemlp.tasks.classification.band_transform import BandsTrainTransform
from cyclemlp.tasks.classification.config import ClassificationConfig, LabelAugmentation
from cyclemlp.tasks.classification.crops import note_cropped
from cyclemlp.tasks.classification.metrics import classification_loss, distillation_loss
from cyclemlp.tasks.classification.teacher import Teacher, load_teacher
from cyclemlp.tasks.loss import TaskLoss
from cyclemlp.tasks.parameter_groups import layer_groups

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 64, 224
"""Bounds of the image size that is chosen where none is given."""
_IMAGES_MEASURED = 100

_logger = logging.getLogger(__name__)


def with_image_size(config: ClassificationConfig, dataset: ClassifiedDataset) -> ClassificationConfig:
    """The config with an image size, chosen from the images where none was given."""
    if config.image_size is None:
        config = replace(config, image_size=natural_size(dataset.splits["train"]))
        _logger.info("image size %d, near that of the images", config.image_size)
    return config


def classification_parts(config: ClassificationConfig, dataset: ClassifiedDataset) -> TrainingParts:
    """Network, loss and samples of a run whose image size is chosen. Raises ConfigError and CheckpointError."""
    changes = config.architecture.options
    crop = config.crop if config.resize == "crop" else 1.0
    card = ModelCard.of_run("classification", config, dataset, head="linear", crop_pct=crop, model_options=changes)
    note_cropped([path for split in dataset.splits.values() for path in split.images], card)
    size = card.image_size or MAX_IMAGE_SIZE
    options = config.optimisation
    model = build_model(card, options.drop_path)
    check_image_size(model, config.model, size)
    teacher = None if config.loss.teacher is None else load_teacher(config.loss.teacher, card)
    loss = LabelLoss(config, len(card.classes), teacher)
    transform: Callable[[Pixels, int], tuple[Tensor, Tensor]]
    if card.in_chans == COLOURS:
        transform = LabelTrainTransform(size, config.augmentation, config.resize)
    else:
        transform = BandsTrainTransform(size, config.augmentation, card, config.resize)
    samples = SplitSamples(replace(dataset.splits["train"], rule=card.pixel_rule), transform)
    groups = partial(layer_groups, weight_decay=options.weight_decay, layer_decay=options.layer_decay)
    repeats = config.augmentation.repeated
    return TrainingParts(card, model, loss, samples, groups, default_collate, repeats=repeats)


def natural_size(split: ClassifiedSplit) -> int:
    """The multiple of 32, from 64 to 224, nearest to the median shorter side of the images."""
    edge = median(min(image_size(path)) for path in evenly_spaced(split.images, _IMAGES_MEASURED))
    return min(max(32 * round(edge / 32), MIN_IMAGE_SIZE), MAX_IMAGE_SIZE)


class LabelTrainTransform:
    """A random training sample of an image, uint8 (H, W, 3): float32 (3, size, size), normalised, and its class number.

    The changes are timm's, which are those of the authors' recipe. With `resize` pad or squash they are made to the
    whole image as a square.
    """

    def __init__(self, size: int, options: LabelAugmentation, resize: SquareRule = "crop") -> None:
        self._resize: SquareRule = resize
        self._rotate90 = options.rotate90
        self._max_edge = 2 * size
        self._transform: Callable[[Image.Image], Tensor] = create_transform(
            size,
            is_training=True,
            scale=options.scale,
            hflip=options.flip,
            vflip=options.vertical_flip,
            color_jitter=options.colour_jitter or None,
            auto_augment=options.auto_augment,
            interpolation="bicubic",
            re_prob=options.erasing,
            re_mode="pixel",
        )

    def __call__(self, image: Pixels, label: int) -> tuple[Tensor, Tensor]:
        image = np.ascontiguousarray(np.rot90(image, drawn_turns(self._rotate90)))
        if self._resize != "crop":
            edge = min(max(image.shape[:2]), self._max_edge)
            image = whole_square(image, edge, self._resize, IMAGENET_MEAN)
        with seeded_by_torch():
            return self._transform(Image.fromarray(image)), torch.tensor(label)


class LabelLoss(TaskLoss):
    """Cross entropy on smoothed and, with Mixup or CutMix, mixed labels; optionally the distance from a teacher."""

    def __init__(self, config: ClassificationConfig, num_classes: int, teacher: Teacher | None = None) -> None:
        super().__init__()
        self.terms = ("cross_entropy", *(["distillation"] if teacher else []))
        self._options = config.loss
        self._teacher = teacher
        mixup, cutmix = config.augmentation.mixup, config.augmentation.cutmix
        smoothing = config.loss.label_smoothing
        self._mix = (
            Mixup(mixup, cutmix, label_smoothing=smoothing, num_classes=num_classes) if mixup or cutmix else None
        )

    def forward(self, model: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Of images (B, C, H, W) and class numbers (B,)."""
        smoothing = self._options.label_smoothing
        if self._mix is not None:
            with seeded_by_torch():
                images, targets = self._mix(images, targets)
            smoothing = 0.0  # the mixed labels are smoothed already
        logits = model(images)
        terms = {"cross_entropy": classification_loss(logits, targets, label_smoothing=smoothing)}
        loss = terms["cross_entropy"]
        if self._teacher is not None:
            terms["distillation"] = distillation_loss(logits, self._teacher(images), self._options.temperature)
            loss = torch.lerp(loss, terms["distillation"], self._options.teacher_weight)
        return {"loss": loss, **terms}
