"""Checkpoints: `checkpoints/last.ckpt`, from which a run continues, and `best.ckpt`, by its validation score.

`previous.ckpt` is the one before the last, for a run whose last one is damaged. `sha256.txt` has the digests of all
three; a digest is added before its file appears, so that no file is without one at any moment.
"""

import io
import logging
import pickle
import shutil
import time
from hashlib import sha256
from pathlib import Path

import torch

from cyclemlp.errors import CheckpointError, reason_of
from cyclemlp.files import JsonObject, atomic_write, check_digest, write_text
from cyclemlp.tasks.aside import drop
from cyclemlp.tasks.card import WEIGHTS_NAME
from cyclemlp.training.fabric import any_process
from cyclemlp.training.state import TrainingState

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
BEST = "best.ckpt"
FORMAT = 2
SECONDS_BETWEEN_CHECKPOINTS = 60.0
DIGESTS = "sha256.txt"
_UNREADABLE = (
    *(OSError, RuntimeError, EOFError, pickle.UnpicklingError),
    *(AttributeError, TypeError, ValueError, LookupError, ArithmeticError, AssertionError),
)
"""What torch.load raises for damaged files of which no digest is known."""

_logger = logging.getLogger(__name__)


def checkpoint_path(run_dir: Path, name: str = LAST) -> Path:
    """The checkpoint of that name in a run folder."""
    return run_dir / "checkpoints" / name


def save_checkpoint(state: TrainingState, evaluations: JsonObject, name: str) -> None:
    """Write a checkpoint that appears whole or not at all; the first process does, the others wait for it."""
    if state.fabric.is_global_zero:
        # Through memory: where the disk is full, torch's own file writer hides the reason.
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **state.state_dict(), "evaluations": evaluations}, buffer)
        path = checkpoint_path(state.config.run_dir, name)
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as part:
            part.write_bytes(buffer.getbuffer())
            _add_digest(path, sha256(buffer.getbuffer()).hexdigest())
            if name == LAST and path.is_file():
                path.replace(path.with_name(PREVIOUS))
        if name == LAST:
            drop(state.config.run_dir)
    state.fabric.barrier()


def read_checkpoint(run_dir: Path) -> JsonObject | None:
    """The last checkpoint of a run that is not damaged, None where it has none yet. Raises CheckpointError."""
    found = [path for name in (LAST, PREVIOUS) if (path := checkpoint_path(run_dir, name)).is_file()]
    for path in found:
        try:
            return _read(path)
        except CheckpointError as error:
            if path == found[-1]:
                raise
            _logger.warning("%s; continuing from the one before it, %s", error, found[-1])
    return None


def read_best(run_dir: Path) -> JsonObject | None:
    """The checkpoint with the best score, None where there is none that can be read."""
    path = checkpoint_path(run_dir, BEST)
    try:
        return _read(path) if path.is_file() else None
    except CheckpointError as error:
        _logger.warning("%s; the network is that of the last step", error)
        return None


def _read(path: Path) -> JsonObject:
    check_digest(path, {digest for digest, _ in _digests(path.parent)})
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk: the file may be whole, and the one before it would lose steps
        reason = reason_of(error)
        raise CheckpointError(
            f"{path} is not a readable checkpoint ({reason}): remove it to begin the run again"
        ) from error
    if isinstance(state, dict) and state.get("format") == FORMAT:
        return state
    run_dir = path.parent.parent
    finished = (run_dir / WEIGHTS_NAME).is_file()
    advice = f"start from its weights with --init {run_dir} and another --out" if finished else "begin it again"
    raise CheckpointError(f"{path} was written by another version of cyclemlp and cannot be resumed: {advice}")


def _digests(folder: Path) -> list[tuple[str, str]]:
    """Digest and name of each checkpoint, as `sha256sum` writes them; none of runs of earlier versions."""
    path = folder / DIGESTS
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return [(words[0], words[1]) for line in lines if len(words := line.split()) == 2]


def _add_digest(path: Path, digest: str) -> None:
    """Note the digest of a checkpoint that is about to appear under this name; the older ones of a name go."""
    before = dict[str, str]()
    for earlier, name in _digests(path.parent):
        before[name] = earlier
    if path.name == LAST and LAST in before:
        before[PREVIOUS] = before[LAST]
    lines = [f"{each}  {name}" for name, each in {**before, path.name: digest}.items()]
    write_text(path.parent / DIGESTS, "\n".join(lines) + "\n")


def keep_as_best(run_dir: Path) -> None:
    """Make the last checkpoint the best one."""
    best = checkpoint_path(run_dir, BEST)
    with atomic_write(best) as part:
        shutil.copyfile(checkpoint_path(run_dir), part)
        for digest, name in _digests(best.parent):
            if name == LAST:
                _add_digest(best, digest)


def checkpoint_is_due(state: TrainingState, saved_at: float) -> bool:
    """Whether to write a checkpoint after this step, the last one being of `saved_at`; the same in all processes."""
    if (every := state.config.recording.checkpoint_every) is not None:
        return state.step % every == 0
    return any_process(state.fabric, time.monotonic() - saved_at >= SECONDS_BETWEEN_CHECKPOINTS)
