"""Classification runs: what they learn from, what they minimise, how they are scored."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from timm.data.mixup import Mixup
from torch import Tensor, nn

from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.images import image_size, read_image
from cyclemlp.data.label_transforms import LabelTestTransform, LabelTrainTransform, seeded_by_torch
from cyclemlp.data.labels import ClassifiedDataset, ClassifiedSamples, ClassifiedSplit
from cyclemlp.data.sampling import evenly_spaced
from cyclemlp.models.classifiers import check_image_size, create_classifier
from cyclemlp.tasks.base import TaskLoss, TrainingTask
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.classification.config import ClassificationConfig, LabelAugmentation
from cyclemlp.tasks.classification.metrics import LabelCounts, classification_loss, distillation_loss
from cyclemlp.tasks.classification.teacher import Teacher, load_teacher
from cyclemlp.tasks.parameter_groups import freeze, layer_groups
from cyclemlp.training.evaluation import Evaluator
from cyclemlp.training.trainer import EvaluateRun, train

SMALLEST, LARGEST = 64, 224
"""Between these the edge of the images is chosen where it is not given."""
_LOOKED_AT = 100

_logger = logging.getLogger(__name__)


def train_classification(config: ClassificationConfig, *, evaluate: EvaluateRun | None = None) -> Path:
    """Train, or with `config.resume` continue, and return the run folder.

    `evaluate` makes the final metrics from the finished run folder, by default as the evaluations before. Raises as
    `train`.
    """
    dataset = find_dataset(config.data, ClassifiedDataset)
    if config.image_size is None:
        config = replace(config, image_size=natural_size(dataset.splits["train"]))
        _logger.info("image size %d, near that of the images", config.image_size)
    return train(config, lambda: classification_task(config, dataset), evaluate)


def classification_task(config: ClassificationConfig, dataset: ClassifiedDataset) -> TrainingTask:
    """The parts of a classification run whose image size is chosen. Raises ConfigError and CheckpointError."""
    card = _card(config, dataset)
    size = card.image_size or LARGEST
    options = config.optimisation
    model = create_classifier(
        config.model,
        len(card.classes),
        image_size=size,
        drop_path_rate=options.drop_path,
        model_options=card.model_options,
    )
    check_image_size(model, config.model, size)
    idle = freeze(model, options.freeze)
    teacher = None if config.loss.teacher is None else load_teacher(config.loss.teacher, card)
    return TrainingTask(
        card,
        model,
        LabelLoss(config, len(card.classes), teacher),
        ClassifiedSamples(dataset.splits["train"], _transform(config.augmentation, size)),
        LabelEvaluator(dataset.splits["val"], card),
        partial(layer_groups, weight_decay=options.weight_decay, layer_decay=options.layer_decay),
        idle,
        config.augmentation.repeated,
    )


def natural_size(split: ClassifiedSplit) -> int:
    """The multiple of 32, from 64 to 224, nearest to the usual shorter side of the images."""
    edge = median(min(image_size(path)) for path in evenly_spaced(split.images, _LOOKED_AT))
    return min(max(32 * round(edge / 32), SMALLEST), LARGEST)


def _card(config: ClassificationConfig, dataset: ClassifiedDataset) -> ModelCard:
    return ModelCard(
        task="classification",
        model=config.model,
        head="linear",
        classes=dataset.classes,
        image_size=config.image_size,
        crop_pct=config.crop,
        model_options=config.architecture.options,
        source=f"trained by cyclemlp on {config.data.name}",
    )


def _transform(options: LabelAugmentation, size: int) -> LabelTrainTransform:
    return LabelTrainTransform(
        size,
        scale=options.scale,
        flip=options.flip,
        vertical_flip=options.vertical_flip,
        colour_jitter=options.colour_jitter,
        auto_augment=options.auto_augment,
        erasing=options.erasing,
    )


class LabelLoss(TaskLoss):
    """Cross entropy on labels that are smoothed and, with Mixup or CutMix, mixed; beside it a teacher's opinion."""

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


class LabelEvaluator(Evaluator):
    """Right and wrong images of a split, cut as in prediction."""

    together = 32

    def __init__(self, split: ClassifiedSplit, card: ModelCard) -> None:
        super().__init__(len(split.images), card.classes)
        self._split = split
        self._transform = LabelTestTransform(card.image_size or LARGEST, card.crop_pct or 1.0)

    def no_counts(self) -> LabelCounts:
        """Counts of no image."""
        return LabelCounts(len(self.classes))

    def count_some(self, counts: LabelCounts, model: nn.Module, device: torch.device, indices: Sequence[int]) -> None:
        """Add these images. Raises DataError for a file that is not usable."""
        images = torch.stack([self._transform(read_image(self._split.images[index])) for index in indices])
        counts.update(model(images.to(device)), torch.tensor([self._split.labels[index] for index in indices]))
