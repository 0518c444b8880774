"""Segmentation runs: what they learn from, what they minimise, how they are scored."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.images import read_image
from cyclemlp.data.mask_transforms import MaskTrainTransform
from cyclemlp.data.masks import MaskDataset, MaskSplit, SegmentationSamples
from cyclemlp.data.resizing import ResizeRule, size_factor
from cyclemlp.data.transforms import Normalisation, normalise
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.heads.segmentation import LEAST_BATCH, WITH_AUXILIARY, SegmentationModel, build_segmentation_model
from cyclemlp.tasks.base import TaskLoss, TrainingTask
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.parameter_groups import decay_groups
from cyclemlp.tasks.segmentation.config import SegmentationConfig
from cyclemlp.tasks.segmentation.metrics import ConfusionMatrix, class_weights_from_counts, segmentation_loss
from cyclemlp.training.evaluation import Evaluator
from cyclemlp.training.trainer import EvaluateRun, train

PredictLogits = Callable[[nn.Module, Tensor], Tensor]
"""From a network and a normalised image (1, C, H, W) to logits (1, classes, H, W); by windows, for example."""


def train_segmentation(
    config: SegmentationConfig, *, predict: PredictLogits | None = None, evaluate: EvaluateRun | None = None
) -> Path:
    """Train, or with `config.resume` continue, and return the run folder.

    `predict` gives the logits of a whole image in evaluations while training, by default in one pass. `evaluate`
    makes the final metrics from the finished run folder, by default as the evaluations before. Raises as `train`.
    """
    return train(config, lambda: segmentation_task(config, predict), evaluate)


def segmentation_task(config: SegmentationConfig, predict: PredictLogits | None = None) -> TrainingTask:
    """The parts of a segmentation run. Raises ConfigError and DataError."""
    _check_batch(config)
    dataset = find_dataset(config.data, MaskDataset)
    card = _card(config, dataset)
    auxiliary = config.loss.auxiliary if config.head in WITH_AUXILIARY else 0.0
    model = build_segmentation_model(
        config.model,
        config.head,
        len(card.classes),
        head_width=config.head_width,
        drop_path_rate=config.optimisation.drop_path,
        auxiliary=auxiliary > 0,
    )
    images = dataset.splits["train"]
    weights = _class_weights(config, images, len(card.classes))
    predict = predict or partial(whole_image, config=config)
    return TrainingTask(
        card,
        model,
        SegmentationLoss(weights, config.loss.dice, auxiliary),
        SegmentationSamples(images, _transform(config), len(card.classes)),
        SegmentationEvaluator(dataset.splits["val"], card.classes, Normalisation(), predict),
        partial(decay_groups, weight_decay=config.optimisation.weight_decay),
    )


def _check_batch(config: SegmentationConfig) -> None:
    """A batch of one fails in BatchNorm where a map has one position, with a message about neither head nor batch."""
    batch, least = config.optimisation.batch_size, LEAST_BATCH.get(config.head, 1)
    if batch < least:
        raise ConfigError(
            f"--batch-size {batch} is too small for --head {config.head}, whose BatchNorm sees maps of one position:"
            f" give --batch-size {least} or more, or --head semantic-fpn"
        )


def _card(config: SegmentationConfig, dataset: MaskDataset) -> ModelCard:
    return ModelCard(
        task="segmentation",
        model=config.model,
        head=config.head,
        head_width=config.head_width,
        classes=dataset.classes,
        input_scale=config.input_scale,
        window=config.window,
        short_side=config.short_side,
        long_side=config.long_side,
        source=f"trained by cyclemlp on {config.data.name}",
    )


class SegmentationLoss(TaskLoss):
    """Cross entropy, by class weights (K,) where they are given, Dice and the auxiliary head's where they weigh."""

    def __init__(self, class_weights: Tensor | None = None, dice: float = 0.0, auxiliary: float = 0.0) -> None:
        super().__init__()
        self.terms = ("cross_entropy", *(["dice"] if dice else []), *(["auxiliary"] if auxiliary else []))
        self._dice = dice
        self._auxiliary = auxiliary
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, model: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Of images (B, C, H, W) and classes (B, H, W)."""
        auxiliary = None
        if self._auxiliary:
            logits, beside = cast("SegmentationModel", model).training_logits(images)
            assert beside is not None  # whoever weighs an auxiliary head builds it
            auxiliary = (beside, self._auxiliary)
        else:
            logits = model(images)
        return segmentation_loss(logits, targets, self.class_weights, dice_weight=self._dice, auxiliary=auxiliary)


class SegmentationEvaluator(Evaluator):
    """Right and wrong pixels, image by image at full size."""

    def __init__(
        self, split: MaskSplit, classes: tuple[str, ...], normalisation: Normalisation, predict: PredictLogits
    ) -> None:
        super().__init__(len(split.images), classes)
        self._split = split
        self._normalisation = normalisation
        self._predict = predict

    def no_counts(self) -> ConfusionMatrix:
        """An empty confusion matrix."""
        return ConfusionMatrix(len(self.classes))

    def count_some(
        self, counts: ConfusionMatrix, model: nn.Module, device: torch.device, indices: Sequence[int]
    ) -> None:
        """Add every pixel of these images. Raises DataError for a file that is not usable."""
        for index in indices:
            image, mask = self._split.images[index], self._split.masks[index]
            pixels = normalise(read_image(image), self._normalisation).unsqueeze(0).to(device)
            prediction = self._predict(model, pixels)[0].argmax(0).cpu()
            try:
                counts.update(prediction, torch.from_numpy(self._split.target(index)))
            except DataError as error:
                raise DataError(f"{mask}: {error}") from error


def whole_image(model: nn.Module, image: Tensor, config: SegmentationConfig) -> Tensor:
    """The simplest `PredictLogits`: the network on the whole image, at the size that `config` asks for."""
    height, width = size = image.shape[-2:]
    input_scale = config.input_scale * size_factor(height, width, config.short_side, config.long_side)
    if input_scale != 1.0:
        larger = [round(edge * input_scale) for edge in size]
        image = F.interpolate(image, larger, mode="bilinear", align_corners=False)
    logits: Tensor = model(image)
    if logits.shape[-2:] != size:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    return logits


def _transform(config: SegmentationConfig) -> MaskTrainTransform:
    rule = ResizeRule(config.input_scale, config.short_side, config.long_side)
    return MaskTrainTransform(config.augmentation, Normalisation(), rule)


def _class_weights(config: SegmentationConfig, split: MaskSplit, num_classes: int) -> Tensor | None:
    if config.loss.class_weights == "none":
        return None
    counts = np.zeros(256, dtype=np.int64)
    for index in tqdm(range(len(split.masks)), unit="mask", desc="count classes", disable=None, leave=False):
        counts += np.bincount(split.target(index).reshape(-1), minlength=256)
    return class_weights_from_counts(counts[:num_classes].tolist(), config.loss.class_weights)
