"""A whole training run, from the parts a task brings to a run folder that predicts."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cyclemlp.errors import MissingExtraError
from cyclemlp.files import atomic_write
from cyclemlp.tasks.base import TrainingTask
from cyclemlp.tasks.card import ModelCard, save_model
from cyclemlp.tasks.options import RunConfig
from cyclemlp.tasks.scores import SCORES, metric_columns
from cyclemlp.training.acceleration import accelerate
from cyclemlp.training.initial_weights import load_initial_weights
from cyclemlp.training.run_folder import open_run
from cyclemlp.training.stopping import TrainingHelped

try:
    from cyclemlp.training.callbacks import BEST, LAST
    from cyclemlp.training.loop import fit, lightning_trainer
    from cyclemlp.training.module import TrainingModule
    from cyclemlp.training.recorder import record_last
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), "train") from error

EvaluateRun = Callable[[Path], Mapping[str, Any]]
"""The final evaluation: from a run folder with its model to metrics, as `Counts.metrics` gives them."""


def train(config: RunConfig, prepare: Callable[[], TrainingTask], evaluate: EvaluateRun | None = None) -> Path:
    """Train, or with `config.resume` continue, and return the run folder.

    `prepare` brings the task's parts; it is called with the run's random seed set. `evaluate` makes the final metrics
    from the finished run folder, by default as the evaluations before.

    Raises UserError (ConfigError, DataError, CheckpointError) for what the user can put right, TrainingStopped
    after Ctrl-C or SIGTERM, when a checkpoint to continue from is written. With several processes, all but the first
    raise TrainingHelped at the end: the run folder is the first one's, and is not finished by then.
    """
    trainer = lightning_trainer(config)
    torch.manual_seed(config.machine.seed)
    task = prepare()
    begun = config.resume and (config.out / "checkpoints" / LAST).is_file()
    if config.init is not None and not begun:
        load_initial_weights(task.model, task.card, config.init)
    accelerate(task.model, config)
    steps = config.length.total_steps(len(task.samples), config.optimisation.batch_size * trainer.world_size)
    module = TrainingModule(task.model, task.loss, config, steps, groups=task.groups, idle=task.idle)
    if trainer.is_global_zero:
        open_run(config)
    best = fit(trainer, module, task)
    if not trainer.is_global_zero:
        raise TrainingHelped
    metrics = _finish(module, task.card, evaluate or partial(_count_all, task, module))
    _keep_if_best(config.out, metrics[SCORES[task.card.task].main], best)
    record_last(config.out, trainer.global_step, metric_columns(task.card.task, metrics))
    return config.out


def _count_all(task: TrainingTask, module: TrainingModule, _run_dir: Path) -> Mapping[str, Any]:
    counts = task.evaluator.count(module.result, module.device)
    assert counts is not None  # nothing asked it to stop
    return counts.metrics(task.card.classes)


def _finish(module: TrainingModule, card: ModelCard, evaluate: EvaluateRun) -> Mapping[str, Any]:
    """Write the model, then score it; so a run whose evaluation fails still has its model."""
    run_dir = module.config.out
    save_model(run_dir, module.result, card)
    metrics = evaluate(run_dir)
    save_model(run_dir, module.result, replace(card, metrics=dict(metrics)))
    return metrics


def _keep_if_best(run_dir: Path, score: float | None, best: float) -> None:
    if (score or 0.0) >= best:
        with atomic_write(run_dir / "checkpoints" / BEST) as part:
            shutil.copyfile(run_dir / "checkpoints" / LAST, part)
