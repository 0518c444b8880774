"""What a segmentation run trains: network, loss and samples."""

from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
from torch import Tensor, nn
from torch.utils.data import default_collate

from cyclemlp.data.mask_samples import MaskSamples
from cyclemlp.data.mask_transforms import MaskTrainTransform
from cyclemlp.data.masks import MaskDataset, MaskSplit
from cyclemlp.data.palettes import read_palette
from cyclemlp.data.transforms import Normalisation
from cyclemlp.errors import ConfigError
from cyclemlp.heads.segmentation import MIN_BATCH, WITH_AUXILIARY, SegmentationModel, build_segmentation_model
from cyclemlp.progress import progress_bar
from cyclemlp.tasks.base import TrainingParts
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.loss import TaskLoss
from cyclemlp.tasks.parameter_groups import decay_groups
from cyclemlp.tasks.segmentation.config import SegmentationConfig
from cyclemlp.tasks.segmentation.metrics import class_weights_from_counts, segmentation_loss


def segmentation_parts(config: SegmentationConfig, dataset: MaskDataset) -> TrainingParts:
    """Network, loss and samples of a segmentation run. Raises ConfigError and DataError."""
    _check_batch(config)
    palette = () if config.palette is None else read_palette(config.palette).texts()
    labels = {"palette": palette, "label_field": config.label_field or ""}
    card = ModelCard.of_run("segmentation", config, dataset, **labels)
    auxiliary = config.loss.auxiliary if config.head in WITH_AUXILIARY else 0.0
    model = network_of(card, config.optimisation.drop_path, auxiliary=auxiliary > 0)
    train = replace(dataset.splits["train"], num_classes=len(card.classes), rule=card.pixel_rule)
    weights = _class_weights(config, train, len(card.classes))
    loss = SegmentationLoss(weights, config.loss.dice, auxiliary)
    normalisation = Normalisation(card.mean, card.std)
    samples = MaskSamples(train, MaskTrainTransform(config.augmentation, normalisation, card.resize_rule))
    groups = partial(decay_groups, weight_decay=config.optimisation.weight_decay)
    return TrainingParts(card, model, loss, samples, groups, default_collate)


def network_of(card: ModelCard, drop_path_rate: float = 0.0, *, auxiliary: bool = False) -> nn.Module:
    """The network that the card describes, with random weights, and with the auxiliary head if one is trained."""
    return build_segmentation_model(
        card.model,
        card.head,
        len(card.classes),
        head_width=card.head_width,
        in_chans=card.in_chans,
        drop_path_rate=drop_path_rate,
        auxiliary=auxiliary,
    )


def _check_batch(config: SegmentationConfig) -> None:
    """Refuse batches of one where BatchNorm sees maps of one position: its own message names neither head nor batch."""
    batch, least = config.optimisation.batch_size, MIN_BATCH.get(config.head, 1)
    if batch < least:
        raise ConfigError(
            f"--batch-size {batch} is too small for --head {config.head}, whose BatchNorm sees maps of one position:"
            f" give --batch-size {least} or more, or --head semantic-fpn"
        )


class SegmentationLoss(TaskLoss):
    """Cross entropy, optionally with class weights (K,), plus weighted Dice and auxiliary terms."""

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
            logits, from_auxiliary = cast("SegmentationModel", model).training_logits(images)
            assert from_auxiliary is not None  # the network was built with the head
            auxiliary = (from_auxiliary, self._auxiliary)
        else:
            logits = model(images)
        return segmentation_loss(logits, targets, self.class_weights, dice_weight=self._dice, auxiliary=auxiliary)


def _class_weights(config: SegmentationConfig, split: MaskSplit, num_classes: int) -> Tensor | None:
    if config.loss.class_weights == "none":
        return None
    counts = np.zeros(256, dtype=np.int64)
    for index in progress_bar(range(len(split.masks)), what="counting classes", unit="masks"):
        for _, target in split.targets(index):
            counts += np.bincount(target.reshape(-1), minlength=256)
    return class_weights_from_counts(counts[:num_classes].tolist(), config.loss.class_weights)
