"""A whole training run: from data and options to a folder with a network, its scores and a report."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from cyclemlp.data.checks import check_files
from cyclemlp.data.folders import outside_allowed
from cyclemlp.data.sampling import evenly_spaced
from cyclemlp.errors import MissingExtraError, UserError, reason_of
from cyclemlp.files import JsonMapping, verified
from cyclemlp.inference.evaluate import Evaluator
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.base import DEVELOPMENT, Counts, Dataset, TrainingParts
from cyclemlp.tasks.card import ModelCard, save_card, save_model
from cyclemlp.tasks.options import RunConfig, optimizer_of
from cyclemlp.tasks.parameter_groups import with_frozen
from cyclemlp.tasks.registry import AnyTask
from cyclemlp.training.initial_weights import load_initial_weights
from cyclemlp.training.report import RAW_WEIGHTS, write_report
from cyclemlp.training.run_folder import begun, check_same_classes
from cyclemlp.training.single_values import allow_single_values
from cyclemlp.training.stopping import TrainingHelped
from cyclemlp.training.verdict import Outcome, in_words, losses_of, verdict

try:
    from lightning.fabric import Fabric

    from cyclemlp.training.checkpoints import checkpoint_path, keep_as_best, read_best
    from cyclemlp.training.evaluations import Evaluations
    from cyclemlp.training.fabric import accelerate, build_fabric
    from cyclemlp.training.fit import fitted
    from cyclemlp.training.loop import fit
    from cyclemlp.training.recorder import Recorder, read_metrics, recording
    from cyclemlp.training.run_record import Session, refuse_other_data
    from cyclemlp.training.state import TrainingState
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), "train") from error


_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    metrics: JsonMapping
    """Scores on all validation images."""
    doubts: str = ""
    """Why the network is not trained to the end, in one sentence; empty where nothing speaks for that."""
    early_end: str = ""
    """Why --patience ended the run, in one sentence; empty where it did not."""

    def __fspath__(self) -> str:
        return str(self.folder)

    __str__ = __fspath__


def run_training(task: AnyTask, config: RunConfig) -> Run:
    """Train, or with `config.resume` continue a run, and return it with its scores.

    The run folder gets model.safetensors and model.json, run.json, checkpoints, metrics.csv and report.html.

    Raises UserError (ConfigError, DataError, CheckpointError) for what the user can correct, TrainingStopped after
    Ctrl-C or SIGTERM, when a checkpoint to continue from is written. With several processes, all but the first raise
    TrainingHelped at the end: the run folder is written by the first one, and is not finished by then.
    """
    with verified(not config.no_verify):
        return _run(task, config, time.monotonic())


def _run(task: AnyTask, config: RunConfig, began: float) -> Run:
    if config.resume:
        check_same_classes(config)
    with outside_allowed(config.allow_outside):
        dataset = task.find_training_data(config)
    if config.resume:
        refuse_other_data(config, dataset)
    check_files(dataset, tuple(dataset.splits))
    config = task.resolve(config, dataset)
    fabric = build_fabric(config)
    used = task.with_development(config, dataset)
    if config.length.fit and not config.resume:
        config = fitted(fabric, task, config, used)
    torch.manual_seed(config.machine.seed)
    parts = with_frozen(task.training_parts(config, used), config.optimisation.freeze)
    config = _with_optimizer(config, parts.model)
    if config.optimisation.freeze and config.init is None:
        _logger.warning("--freeze keeps random weights as they are: give trained ones with --init")
    continued = config.resume and checkpoint_path(config.run_dir).is_file()
    if config.init is not None and fabric.is_global_zero and not continued:  # it hands them on as training begins
        load_initial_weights(parts.model, parts.card, config.init)
    accelerate(parts.model, config)
    allow_single_values(parts.model)
    evaluator = Evaluator(parts.card, used)
    train = partial(_train_in_process, task=task, parts=parts, evaluator=evaluator, began=began)
    with _opened(fabric, task, config, dataset) as config:
        metrics = fabric.launch(partial(train, config=config))
    if metrics is None:
        raise TrainingHelped
    return Run(config.run_dir, *metrics)


def _with_optimizer(config: RunConfig, model: nn.Module) -> RunConfig:
    """The config with --optimizer chosen, so that the run keeps it whatever it is continued with."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    name = optimizer_of(config.optimisation.optimizer, parameters, starts_from_weights=config.init is not None)
    return replace(config, optimisation=replace(config.optimisation, optimizer=name))


@contextmanager
def _opened(fabric: Fabric, task: AnyTask, config: RunConfig, dataset: Dataset) -> Iterator[RunConfig]:
    """The run folder, which the first process chooses, holds and keeps the record of."""
    if not fabric.is_global_zero:
        yield config
        return
    with begun(task.name, config) as opened:
        session = Session(task, opened, dataset)
        try:
            yield opened
        except KeyboardInterrupt:
            _say_how_to_continue(task, opened)
            raise
        finally:
            session.end()


def _say_how_to_continue(task: AnyTask, config: RunConfig) -> None:
    if checkpoint_path(config.run_dir).is_file():
        _logger.info("stopped; to continue: cyclemlp train %s --resume %s", task.name, config.run_dir)
    else:
        _logger.info("stopped before the first checkpoint: the same command begins again")


def _train_in_process(
    fabric: Fabric, *, task: AnyTask, config: RunConfig, parts: TrainingParts, evaluator: Evaluator, began: float
) -> tuple[JsonMapping, str, str] | None:
    """Train; the first process evaluates the network and returns what a `Run` says of it, the others return None."""
    config = replace(config, out=fabric.broadcast(config.out))  # which the first process may have chosen
    state, evaluations = fit(fabric, config, parts, evaluator, began)
    if evaluations.recorder is None:
        return None
    with recording(evaluations.recorder) as recorder:
        return _finish(state, task, evaluator, evaluations, recorder)


def _finish(
    state: TrainingState, task: AnyTask, evaluator: Evaluator, evaluations: Evaluations, recorder: Recorder
) -> tuple[JsonMapping, str, str]:
    """Save the network, then evaluate it, so that a run whose evaluation fails still has its network."""
    run_dir, early_end = state.config.run_dir, evaluations.early_end()
    if early_end and (best := read_best(run_dir)) is not None:
        state.load_network(best)
    save_model(run_dir, state.result, evaluator.card)
    predictor = Predictor.of_model(state.result, evaluator.card, state.config.machine.device)
    card = _chosen_card(task, predictor, evaluator)
    predictor, evaluator = predictor.described_as(card), Evaluator(card, evaluator.dataset)
    # First the images of the evaluations during training: only their score compares with the best one so far.
    sample = evaluator.sample(state.config.recording.evaluation_images)
    counts = evaluator.count_all(predictor, sample)
    if not early_end and (counts.metrics(card.classes)[task.scores.main] or 0.0) >= evaluations.history.best:
        keep_as_best(run_dir)
    counts.merge(evaluator.count_all(predictor, sorted(set(range(evaluator.size)) - set(sample))))
    metrics = {**counts.metrics(card.classes), **_raw_score(state, task, evaluator)}
    save_card(run_dir, task.card_after_validation(replace(card, metrics=metrics), counts))
    recorder.add_last(state.step, task.scores.columns(metrics))
    doubts = _doubts(state, task, counts, metrics, early_end)
    try:
        _report(task, run_dir, predictor, evaluator, counts, doubts, early_end)
    except (UserError, ValueError, RuntimeError) as error:
        reason = reason_of(error)
        _logger.warning("report.html is missing (%s); --resume writes it; network and scores are there", reason)
    return metrics, doubts, early_end


def _chosen_card(task: AnyTask, predictor: Predictor, evaluator: Evaluator) -> ModelCard:
    """The card, with what is chosen on images that were kept out of training."""
    development = evaluator.dataset.splits.get(DEVELOPMENT)
    if development is None:
        return evaluator.card
    _logger.info("choosing the score threshold on %d images kept out of training", len(development.images))
    counts = Evaluator(evaluator.card, evaluator.dataset, DEVELOPMENT).count_all(predictor)
    return task.card_after_development(evaluator.card, counts)


def _raw_score(state: TrainingState, task: AnyTask, evaluator: Evaluator) -> JsonMapping:
    """The scores of the weights without their moving average, under `raw_weights`, if they are asked for."""
    if state.averaged is None or not state.config.recording.score_raw_weights:
        return {}
    _logger.info("scoring the weights without their moving average")
    predictor = Predictor.of_model(state.model, evaluator.card, state.config.machine.device)
    metrics = evaluator.count_all(predictor, range(evaluator.size)).metrics(evaluator.card.classes)
    return {RAW_WEIGHTS: {name: metrics[name] for name in (task.scores.main, *task.scores.further)}}


def _doubts(state: TrainingState, task: AnyTask, counts: Counts, metrics: JsonMapping, early_end: str) -> str:
    outcome = Outcome(
        steps=state.step,
        passes=state.passes,
        losses=[]
        if early_end
        else losses_of(read_metrics(state.config.run_dir)),  # which may fall: more steps do not help
        score=metrics[task.scores.main],
        constant=task.constant_score(counts),
    )
    return in_words(verdict(outcome, task.scores.main))


def _report(
    task: AnyTask,
    run_dir: Path,
    predictor: Predictor,
    evaluator: Evaluator,
    counts: Counts,
    doubts: str,
    early_end: str,
) -> None:
    """Write report.html, with a few validation images spread over the split."""
    dataset, split = evaluator.dataset, evaluator.split
    images = dataset.splits[split].images
    examples = [
        task.draw_part(dataset, split, index, predictor.predict_pixels)
        if task.in_windows(dataset, split, index)
        else task.draw_example(dataset, split, index, predictor.predict(images[index]))
        for index in evenly_spaced(range(len(images)), task.report_examples)
    ]
    _logger.info("writing the report")
    classes = evaluator.card.classes
    figures, tables = task.report_figures(run_dir, counts, classes), task.report_tables(images, counts, classes)
    write_report(run_dir, examples, figures, tables, doubts, early_end)
