"""The training loop, from a batch to a checkpoint."""

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict

import torch
from lightning.fabric import Fabric
from torch import Tensor

from cyclemlp.errors import CheckpointError, ConfigError, UserError, reason_of
from cyclemlp.files import JsonObject
from cyclemlp.inference.evaluate import Evaluator
from cyclemlp.tasks.aside import is_waiting
from cyclemlp.tasks.base import Batch, TrainingParts
from cyclemlp.tasks.options import RunConfig, saved_options
from cyclemlp.tasks.registry import get_task
from cyclemlp.tasks.replacing import remove_begun
from cyclemlp.training.checkpoints import LAST, checkpoint_is_due, checkpoint_path, read_checkpoint, save_checkpoint
from cyclemlp.training.evaluations import Evaluations, History
from cyclemlp.training.fabric import any_process, without_advice
from cyclemlp.training.loader import derive_seed
from cyclemlp.training.losses import LossMonitor
from cyclemlp.training.peers import connected_processes
from cyclemlp.training.plan import Plan
from cyclemlp.training.progress import ProgressLine
from cyclemlp.training.recorder import LOSS_COLUMNS, Recorder, ending_of
from cyclemlp.training.state import TrainingState
from cyclemlp.training.stopping import StopRequest, TrainingStopped

_logger = logging.getLogger(__name__)


def fit(
    fabric: Fabric, config: RunConfig, parts: TrainingParts, evaluator: Evaluator, began: float
) -> tuple[TrainingState, Evaluations]:
    """Train to the end of the run, from the last checkpoint in its run folder if there is one.

    `began` is when the command did, by `time.monotonic`: --max-time holds for all of it. Returns the final state
    and the evaluations during training, whose recorder is still open. Raises UserError, PeerError where
    another process of the run did, and TrainingStopped after SIGINT or SIGTERM.
    """
    try:
        with StopRequest().watching() as stop, without_advice(), connected_processes(fabric, stop):
            return _fit(fabric, config, parts, evaluator, began, stop)
    except (UserError, KeyboardInterrupt):
        # Before its first checkpoint a run has nothing to continue, and the user will want to begin it again.
        run_dir = config.run_dir
        nothing = not checkpoint_path(run_dir).is_file() and not config.resume and not is_waiting(run_dir)
        if fabric.is_global_zero and nothing:
            remove_begun(run_dir)
        raise


def _fit(
    fabric: Fabric, config: RunConfig, parts: TrainingParts, evaluator: Evaluator, began: float, stop: StopRequest
) -> tuple[TrainingState, Evaluations]:
    saved = read_checkpoint(config.run_dir)
    state = TrainingState(fabric, config, parts)
    history = History() if saved is None else _continued(state, saved)
    recorder = None
    if fabric.is_global_zero:
        scores = get_task(parts.card.task).scores.column_names(parts.card.classes)
        columns = [*LOSS_COLUMNS, *parts.loss.terms, *scores]
        recorder = Recorder(config.run_dir, columns, state.step, config.recording.logger, saved_options(config))
    evaluations = Evaluations(state, evaluator, recorder, stop)
    evaluations.history = history
    plan = Plan(state, evaluator)
    if config.length.max_seconds is not None and saved is None:
        plan.reserve(time.monotonic() - began)
    try:
        run(state, evaluations, LossMonitor(state, recorder, len(parts.samples)), plan, stop)
    except BaseException as error:
        if recorder is not None:
            recorder.close(ending_of(error))
        raise
    return state, evaluations


def _continued(state: TrainingState, saved: JsonObject) -> History:
    """Let `state` be the saved one, and return the evaluations before it."""
    try:
        state.load_state_dict(saved)
        history = History(**saved["evaluations"])
    except ConfigError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        path, reason = checkpoint_path(state.config.run_dir), reason_of(error)
        raise CheckpointError(
            f"{path} does not fit this run ({reason}): restore the run's own, or begin the run again with another --out"
        ) from error
    _logger.info("continuing %s from step %d", state.config.run_dir, state.step)
    return history


def run(state: TrainingState, evaluations: Evaluations, losses: LossMonitor, plan: Plan, stop: StopRequest) -> None:
    """Take steps until the run is done or a stop is requested, and after each do what is due.

    A checkpoint is written after the evaluation of the same step, because it holds the outcome.
    """
    state.clock.start()
    state.update_progress()
    batches, saved_at = iter(state.loader), time.monotonic()
    with closing(ProgressLine(state, losses, evaluations)) as progress:
        while state.progress < 1.0 and not evaluations.early_end():
            losses.after_step(training_step(state, batches))
            plan.after_step()
            if evaluations.is_due():
                losses.check()
                evaluations.run()
            stopping = any_process(state.fabric, stop.signum is not None)
            ended = state.progress >= 1.0 or bool(evaluations.early_end())
            if stopping and not ended:
                _refuse_to_replace(state, stop)
            if stopping or ended or checkpoint_is_due(state, saved_at):
                losses.check()
                save_checkpoint(state, asdict(evaluations.history), LAST)
                saved_at = time.monotonic()
            progress.after_step()
            if stopping and not ended:
                raise TrainingStopped(stop.signum or signal.SIGTERM, state.step, state.config.run_dir)
    if state.fabric.is_global_zero and evaluations.early_end():
        _logger.info("stopped at step %d: %s", state.step, evaluations.early_end())


def _refuse_to_replace(state: TrainingState, stop: StopRequest) -> None:
    """Raise TrainingStopped where a checkpoint now would be the end of the run that --overwrite has set aside."""
    run_dir = state.config.run_dir
    if any_process(state.fabric, state.fabric.is_global_zero and is_waiting(run_dir)):
        raise TrainingStopped(stop.signum or signal.SIGTERM, state.step, run_dir, replaced_run_is_back=True)


def training_step(state: TrainingState, batches: Iterator[Batch]) -> dict[str, Tensor]:
    """One step of the optimiser and of the moving average; returns the loss and its terms, without gradients."""
    for group in state.optimizer.param_groups:
        group["lr"] = state.learning_rate * group.get("lr_scale", 1.0)  # set for layer decay
    for module in state.eval_mode_modules:  # an evaluation puts the whole network back into training mode
        module.eval()
    terms = accumulate_gradients(state, batches)
    if max_norm := state.config.optimisation.clip_norm:
        state.fabric.clip_gradients(state.objective, state.optimizer, max_norm=max_norm, error_if_nonfinite=False)
    state.optimizer.step()
    state.optimizer.zero_grad()
    if state.averaged is not None:
        state.averaged.update_parameters(state.model)
    state.step += 1
    state.update_progress()
    return terms


def accumulate_gradients(state: TrainingState, batches: Iterator[Batch]) -> dict[str, Tensor]:
    """Add up the gradients of the batches of a step, as if they were one batch; returns the means of its loss terms.

    Everything random in a batch (dropout, stochastic depth, mixing) follows from (seed, number of the batch, process),
    so a continued run needs no saved random state.
    """
    count, means = state.config.optimisation.accumulate, dict[str, Tensor]()
    for number in range(count):
        images, targets = state.fabric.to_device(next(batches))
        position = state.step * count + number
        torch.manual_seed(derive_seed(state.config.machine.seed, 2, position, state.fabric.global_rank))
        with state.fabric.no_backward_sync(state.objective, enabled=number < count - 1):
            terms = state.objective(images, targets)
            state.fabric.backward(terms["loss"] / count)
        for name, term in terms.items():
            means[name] = means.get(name, 0.0) + term.detach() / count
    return means
