"""The run that `--overwrite` replaces is kept until the new one has a checkpoint, and comes back where it gets none.

It lies in the run folder itself, as `.replaced/`: moving it there takes no space and no time on any disk, and the lock
of the folder holds for it. While it is moved, in either direction, the folder has the name `.replacing/`, so that after
a SIGKILL at any moment the next command knows what to do.
"""

import logging
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cyclemlp.tasks.recipes import CONFIG_NAME
from cyclemlp.tasks.replacing import ASIDE, LOCK, UNFINISHED, is_run, remove_run

_CHECKPOINTS = ("checkpoints/last.ckpt", "checkpoints/previous.ckpt")

_logger = logging.getLogger(__name__)


def set_aside(run_dir: Path) -> None:
    """Move the run in this folder aside; the caller holds the lock and has checked that it can be replaced."""
    unfinished = run_dir / UNFINISHED
    unfinished.mkdir()
    entries = [path for path in run_dir.iterdir() if path.name not in (LOCK, UNFINISHED)]
    for path in sorted(entries, key=lambda path: path.name == CONFIG_NAME):  # which says that it is a run: last
        path.replace(unfinished / path.name)
    unfinished.replace(run_dir / ASIDE)


def is_waiting(run_dir: Path) -> bool:
    """Whether a run has been set aside in this folder."""
    return (run_dir / UNFINISHED).is_dir() or is_run(run_dir / ASIDE)


def put_back(run_dir: Path) -> None:
    """Remove what the new run has written, and move the old one back; the caller holds the lock."""
    unfinished = run_dir / UNFINISHED
    if (run_dir / ASIDE).is_dir():
        remove_run(run_dir)
        (run_dir / ASIDE).replace(unfinished)
    _move_all(unfinished, run_dir)
    _logger.info(
        "the run that was to be replaced is back in %s: the new one ended before its first checkpoint", run_dir
    )


def drop(run_dir: Path) -> None:
    """Remove the run that was set aside, if there is one; the caller holds the lock."""
    if (run_dir / ASIDE).is_dir():
        remove_run(run_dir / ASIDE)
        (run_dir / ASIDE).rmdir()


def settle(run_dir: Path) -> None:
    """Bring back, or remove, what a killed command has set aside in this folder. Nothing while a run uses it."""
    with suppress(OSError):
        (run_dir / ASIDE).rmdir()  # of a command that was killed when it had removed all that was in it
    if not is_waiting(run_dir):
        return
    try:
        lock = FileLock(run_dir / LOCK).acquire(timeout=0)
    except Timeout:
        return
    with lock:
        begun = any((run_dir / name).is_file() for name in _CHECKPOINTS)
        if begun and not (run_dir / UNFINISHED).is_dir():  # else they are those of the old run
            drop(run_dir)
        elif is_waiting(run_dir):
            put_back(run_dir)


def _move_all(source: Path, target: Path) -> None:
    for path in sorted(source.iterdir(), key=lambda path: path.name == CONFIG_NAME):
        place = target / path.name
        if place.is_dir() and path.is_dir() and not path.is_symlink():  # moved in part, or with a file of the user
            _move_all(path, place)
        else:
            path.replace(place)
    source.rmdir()
