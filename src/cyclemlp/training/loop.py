"""The loop: Lightning's, from the last checkpoint to the end of the run."""

import io
import logging
import os
import pickle
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer

from cyclemlp.errors import CheckpointError, ConfigError, UserError
from cyclemlp.files import atomic_write
from cyclemlp.tasks.base import TrainingTask
from cyclemlp.tasks.options import Machine, RunConfig
from cyclemlp.tasks.scores import metric_columns, no_metrics
from cyclemlp.training.callbacks import LAST, BetweenSteps
from cyclemlp.training.loader import ResumableLoader
from cyclemlp.training.module import TrainingModule
from cyclemlp.training.recorder import LOSS_COLUMNS, Recorder
from cyclemlp.training.stopping import StopRequest

_logger = logging.getLogger(__name__)

MOST_WORKERS = 8


class WholeFileCheckpointIO(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all; Lightning's own go through a folder on another file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write `checkpoint` to `path`."""
        # Through memory: where the disk is full, torch's own file writer hides the reason.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(Path(path)) as part, part.open("wb") as file:
            file.write(buffer.getbuffer())


def lightning_trainer(config: RunConfig) -> Trainer:
    """Lightning's loop, with its own output, validation and checkpoints off: ours are exact on a resume."""
    logging.getLogger("lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    machine, options = config.machine, config.optimisation
    if machine.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch finds no CUDA GPU here; use --device auto")
    with _without_advice():
        return Trainer(
            accelerator=machine.device,
            devices=machine.devices,
            precision=_precision(options.precision, machine.device),
            max_epochs=-1,  # the module ends the run
            limit_val_batches=0,
            gradient_clip_val=options.clip_norm or None,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=config.out,
            plugins=[WholeFileCheckpointIO()],
        )


def fit(trainer: Trainer, module: TrainingModule, task: TrainingTask) -> float:
    """Train `module` to the end of the run, from the last checkpoint of its run folder if there is one.

    Returns the best score of the evaluations on the way, -1 where there was none.
    """
    config = module.config
    last = config.out / "checkpoints" / LAST
    step = _step_of(last) if last.is_file() else 0
    if step:
        _logger.info("continuing %s from step %d", config.out, step)
    loader = ResumableLoader(
        task.samples,
        config.optimisation.batch_size,
        repeats=task.repeats,
        kinds=task.kinds,
        collate=task.collate,
        seed=config.machine.seed,
        workers=_workers(config.machine),
        rank=trainer.global_rank,
        world=trainer.world_size,
        pin_memory=trainer.strategy.root_device.type == "cuda",
    )
    recorder = Recorder(config.out, _columns(task), step) if trainer.is_global_zero else None
    try:
        with StopRequest().watching() as stop, _without_advice():
            between = BetweenSteps(task, recorder, stop)
            trainer.callbacks.append(between)  # type: ignore[attr-defined]
            trainer.fit(module, loader, ckpt_path=str(last) if step else None, weights_only=True)
    except UserError:
        # Before its first checkpoint a run has nothing to continue, and the user will want to begin again.
        if trainer.is_global_zero and not last.is_file() and not config.resume:
            shutil.rmtree(config.out)
        raise
    finally:
        if recorder is not None:
            recorder.close()
    return between.evaluations.best


def _columns(task: TrainingTask) -> list[str]:
    scores = metric_columns(task.card.task, no_metrics(task.card.task, task.card.classes))
    return [*LOSS_COLUMNS, *task.loss.terms, *scores]


def _precision(wanted: str, device: str) -> Any:
    if wanted != "auto":
        return wanted
    on_gpu = device in ("auto", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32-true"


def _workers(machine: Machine) -> int:
    if machine.workers is not None:
        return machine.workers
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable // 2, MOST_WORKERS)


def _step_of(checkpoint: Path) -> int:
    try:
        return int(torch.load(checkpoint, mmap=True, map_location="cpu", weights_only=True)["global_step"])
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{checkpoint} is not a readable checkpoint ({reason}): remove it to begin the run again"
        ) from error


@contextmanager
def _without_advice() -> Iterator[None]:
    """Lightning's warnings are advice on options that are chosen here on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        yield
