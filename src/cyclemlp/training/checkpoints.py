"""Checkpoints: `checkpoints/last.ckpt`, from which a run continues, and `best.ckpt`, by its validation score."""

import io
import pickle
import shutil
import time
from pathlib import Path

import torch

from cyclemlp.errors import CheckpointError
from cyclemlp.files import JsonObject, atomic_write
from cyclemlp.tasks.card import WEIGHTS_NAME
from cyclemlp.training.fabric import any_process
from cyclemlp.training.state import TrainingState

LAST = "last.ckpt"
BEST = "best.ckpt"
FORMAT = 2
SECONDS_BETWEEN_CHECKPOINTS = 60.0


def checkpoint_path(run_dir: Path, name: str = LAST) -> Path:
    """The checkpoint of that name in a run folder."""
    return run_dir / "checkpoints" / name


def save_checkpoint(state: TrainingState, evaluations: JsonObject, name: str) -> None:
    """Write a checkpoint that appears whole or not at all; the first process does, the others wait for it."""
    if state.fabric.is_global_zero:
        # Through memory: where the disk is full, torch's own file writer hides the reason.
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **state.state_dict(), "evaluations": evaluations}, buffer)
        path = checkpoint_path(state.config.out, name)
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as part, part.open("wb") as file:
            file.write(buffer.getbuffer())
    state.fabric.barrier()


def read_checkpoint(run_dir: Path) -> JsonObject | None:
    """The last checkpoint of a run, None where it has none yet. Raises CheckpointError where it is not usable."""
    path = checkpoint_path(run_dir)
    if not path.is_file():
        return None
    try:
        state: JsonObject = torch.load(path, map_location="cpu", weights_only=True)
        if state.get("format") == FORMAT:
            return state
    except (OSError, RuntimeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} is not a readable checkpoint ({reason}): remove it to begin the run again"
        ) from error
    finished = (run_dir / WEIGHTS_NAME).is_file()
    advice = f"start from its weights with --init {run_dir} and another --out" if finished else "begin it again"
    raise CheckpointError(f"{path} was written by another version of cyclemlp and cannot be resumed: {advice}")


def keep_as_best(run_dir: Path) -> None:
    """Make the last checkpoint the best one."""
    with atomic_write(checkpoint_path(run_dir, BEST)) as part:
        shutil.copyfile(checkpoint_path(run_dir), part)


def checkpoint_is_due(state: TrainingState, saved_at: float) -> bool:
    """Whether to write a checkpoint after this step, the last one being of `saved_at`; the same in all processes."""
    if state.progress >= 1.0:
        return True
    if (every := state.config.recording.checkpoint_every) is not None:
        return state.step % every == 0
    return any_process(state.fabric, time.monotonic() - saved_at >= SECONDS_BETWEEN_CHECKPOINTS)
