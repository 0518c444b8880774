"""A whole training run, from a data folder to a run folder that predicts."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cyclemlp.data.images import read_mask
from cyclemlp.data.masks import MaskDataset, MaskSplit, SegmentationSamples, find_mask_dataset
from cyclemlp.data.transforms import Normalisation, SegmentationAugmentation, SegmentationTrainTransform
from cyclemlp.errors import MissingExtraError
from cyclemlp.files import whole_file
from cyclemlp.heads.segmentation import build_segmentation_model
from cyclemlp.tasks.card import ModelCard, save_model
from cyclemlp.tasks.segmentation import class_weights_from_counts
from cyclemlp.training.config import SegmentationConfig
from cyclemlp.training.initial_weights import load_initial_weights
from cyclemlp.training.run_folder import open_run

try:
    from cyclemlp.training.callbacks import BEST, LAST, metric_columns
    from cyclemlp.training.evaluation import Evaluator, PredictLogits, whole_image
    from cyclemlp.training.loop import fit, lightning_trainer
    from cyclemlp.training.module import SegmentationModule
    from cyclemlp.training.recorder import record_last
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), "train") from error

EvaluateRun = Callable[[Path], Mapping[str, Any]]
"""The final evaluation: from a run folder with its model to metrics, as `ConfusionMatrix.metrics` gives them."""


def train_segmentation(
    config: SegmentationConfig, *, predict: PredictLogits | None = None, evaluate: EvaluateRun | None = None
) -> Path:
    """Train, or with `config.resume` continue, and return the run folder.

    `predict` gives the logits of a whole image in evaluations while training, by default in one pass. `evaluate`
    makes the final metrics from the finished run folder, by default as the evaluations before.

    Raises UserError (ConfigError, DataError, CheckpointError) for what the user can put right, TrainingStopped
    after Ctrl-C or SIGTERM, when a checkpoint to continue from is written.
    """
    trainer = lightning_trainer(config)
    dataset = find_mask_dataset(config.data)
    card = ModelCard(
        task="segmentation",
        model=config.model,
        head=config.head,
        head_width=config.head_width,
        classes=dataset.classes,
        input_scale=config.input_scale,
        window=config.window,
        source=f"trained by cyclemlp on {config.data.name}",
    )
    module = _build_module(config, card, dataset, trainer.world_size)
    if trainer.is_global_zero:
        open_run(config)
    predict = predict or partial(whole_image, input_scale=config.input_scale)
    evaluator = Evaluator(dataset.splits["val"], card.classes, Normalisation(), predict)
    samples = SegmentationSamples(dataset.splits["train"], _transform(config), len(card.classes))
    best = fit(trainer, module, samples, evaluator)
    if trainer.is_global_zero:
        metrics = _finish(module, card, evaluate or partial(_count_all, evaluator, module))
        _keep_if_best(config.out, metrics, best)
        record_last(config.out, trainer.global_step, metric_columns(metrics))
    return config.out


def _build_module(config: SegmentationConfig, card: ModelCard, dataset: MaskDataset, world: int) -> SegmentationModule:
    torch.manual_seed(config.machine.seed)
    model = build_segmentation_model(
        config.model,
        config.head,
        len(card.classes),
        head_width=config.head_width,
        drop_path_rate=config.optimisation.drop_path,
    )
    begun = config.resume and (config.out / "checkpoints" / LAST).is_file()
    if config.init is not None and not begun:
        load_initial_weights(model, card, config.init)
    images = dataset.splits["train"]
    steps = config.length.total_steps(len(images.images), config.optimisation.batch_size * world)
    return SegmentationModule(model, config, steps, _class_weights(config, images, len(card.classes)))


def _transform(config: SegmentationConfig) -> SegmentationTrainTransform:
    options = asdict(config.augmentation)
    options["scale"] = tuple(factor * config.input_scale for factor in config.augmentation.scale)
    return SegmentationTrainTransform(SegmentationAugmentation(**options), Normalisation())


def _class_weights(config: SegmentationConfig, split: MaskSplit, num_classes: int) -> Tensor | None:
    if config.loss.class_weights == "none":
        return None
    counts = np.zeros(256, dtype=np.int64)
    for path in tqdm(split.masks, unit="mask", desc="count classes", disable=None, leave=False):
        counts += np.bincount(read_mask(path).reshape(-1), minlength=256)
    return class_weights_from_counts(counts[:num_classes].tolist(), config.loss.class_weights)


def _count_all(evaluator: Evaluator, module: SegmentationModule, _run_dir: Path) -> Mapping[str, Any]:
    matrix = evaluator.count(module.result, module.device)
    assert matrix is not None  # nothing asked it to stop
    return matrix.metrics(evaluator.classes)


def _finish(module: SegmentationModule, card: ModelCard, evaluate: EvaluateRun) -> Mapping[str, Any]:
    """Write the model, then score it; so a run whose evaluation fails still has its model."""
    run_dir = module.config.out
    save_model(run_dir, module.result, card)
    metrics = evaluate(run_dir)
    save_model(run_dir, module.result, replace(card, metrics=dict(metrics)))
    return metrics


def _keep_if_best(run_dir: Path, metrics: Mapping[str, Any], best: float) -> None:
    if (metrics["mIoU"] or 0.0) >= best:
        with whole_file(run_dir / "checkpoints" / BEST) as part:
            shutil.copyfile(run_dir / "checkpoints" / LAST, part)
