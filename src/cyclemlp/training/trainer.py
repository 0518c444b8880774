"""A whole training run, from the parts that a task provides to a run folder that predicts."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cyclemlp.errors import MissingExtraError
from cyclemlp.tasks.base import TrainingTask
from cyclemlp.tasks.card import save_model
from cyclemlp.tasks.options import RunConfig
from cyclemlp.tasks.scores import SCORES, metric_columns
from cyclemlp.training.acceleration import accelerate
from cyclemlp.training.initial_weights import load_initial_weights
from cyclemlp.training.run_folder import open_run
from cyclemlp.training.stopping import TrainingHelped

try:
    from cyclemlp.training.checkpoints import checkpoint_path, keep_as_best
    from cyclemlp.training.fabric import build_fabric
    from cyclemlp.training.loop import fit
    from cyclemlp.training.recorder import record_last
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), "train") from error

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from cyclemlp.training.state import TrainingState

EvaluateRun = Callable[[Path], Mapping[str, Any]]
"""The final evaluation: from a run folder with its model to metrics, as `Counts.metrics` returns them."""


def train(config: RunConfig, prepare: Callable[[], TrainingTask], evaluate: EvaluateRun | None = None) -> Path:
    """Train, or with `config.resume` continue, and return the run folder.

    `prepare` provides the task's parts; it is called with the run's random seed set. `evaluate` computes the final
    metrics from the finished run folder, by default as in the evaluations during training.

    Raises UserError (ConfigError, DataError, CheckpointError) for what the user can correct, TrainingStopped after
    Ctrl-C or SIGTERM, when a checkpoint to continue from is written. With several processes, all but the first raise
    TrainingHelped at the end: the run folder is written by the first one, and is not finished by then.
    """
    fabric = build_fabric(config)
    torch.manual_seed(config.machine.seed)
    task = prepare()
    if config.init is not None and not (config.resume and checkpoint_path(config.out).is_file()):
        load_initial_weights(task.model, task.card, config.init)
    accelerate(task.model, config)
    if fabric.is_global_zero:
        open_run(config)
    fabric.launch(partial(_train_in_process, config=config, task=task, evaluate=evaluate))
    if not fabric.is_global_zero:
        raise TrainingHelped
    return config.out


def _train_in_process(fabric: "Fabric", config: RunConfig, task: TrainingTask, evaluate: EvaluateRun | None) -> None:
    state, best = fit(fabric, config, task)
    if fabric.is_global_zero:
        _finish(state, task, evaluate, best)


def _finish(state: "TrainingState", task: TrainingTask, evaluate: EvaluateRun | None, best: float) -> None:
    """Save the model, then evaluate it, so that a run whose evaluation fails still has its model."""
    run_dir, card = state.config.out, task.card
    save_model(run_dir, state.result, card)
    if evaluate is not None:
        metrics = evaluate(run_dir)
    else:
        counts = task.evaluator.count(state.result, state.fabric.device)
        assert counts is not None  # nothing asked it to stop
        metrics = counts.metrics(card.classes)
    save_model(run_dir, state.result, replace(card, metrics=dict(metrics)))
    if (metrics[SCORES[card.task].main] or 0.0) >= best:
        keep_as_best(run_dir)
    record_last(run_dir, state.step, metric_columns(card.task, metrics))
