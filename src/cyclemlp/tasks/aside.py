"""The run that `--overwrite` replaces is kept until the new one has a checkpoint, and comes back where it gets none.

It lies in the run folder itself, as `.replaced/`: moving it there takes no space and no time on any disk, and the lock
of the folder holds for it. While it is moved, in either direction, the folder has the name `.replacing/`, and while it
is deleted `.dropping/`, so that after a SIGKILL at any moment the next command knows what to do.
"""

import logging
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cyclemlp.errors import reason_of
from cyclemlp.machine import is_first_process
from cyclemlp.tasks.recipes import CONFIG_NAME
from cyclemlp.tasks.replacing import ASIDE, DROPPED, LOCK, UNFINISHED, is_run, remove_folders, remove_run

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
    """Whether a run has been set aside in this folder that comes back if the new one ends now."""
    if (run_dir / UNFINISHED).is_dir():  # any checkpoints are those of the old run
        return True
    return is_run(run_dir / ASIDE) and not any((run_dir / name).is_file() for name in _CHECKPOINTS)


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
    """Remove the run that was set aside, if there is one; the caller holds the lock.

    What cannot be deleted, such as a file that another program has open, is a warning; `settle` tries again.
    """
    try:
        if is_run(run_dir / ASIDE):
            (run_dir / ASIDE).replace(run_dir / DROPPED)
        _remove_dropped(run_dir / DROPPED)
    except OSError as error:
        reason = reason_of(error)
        _logger.warning(
            "the replaced run in %s could not be deleted (%s); the next command tries again", run_dir, reason
        )


def settle(run: Path) -> None:
    """Bring back, or remove, what a killed command has set aside in a run folder, given itself or by a file in it.

    Nothing happens while a run uses the folder, and in processes that help the first one.
    """
    if not is_first_process():
        return
    run_dir = run if run.is_dir() else run.parent
    waiting = is_waiting(run_dir)
    if not (waiting or is_run(run_dir / ASIDE) or (run_dir / DROPPED).is_dir()):
        return
    try:
        lock = FileLock(run_dir / LOCK).acquire(timeout=0)
    except Timeout:
        return
    except OSError:  # a folder that can only be read; that something is left to delete in it does no harm
        if waiting:
            raise
        return
    with lock:
        if is_waiting(run_dir):
            put_back(run_dir)
        drop(run_dir)


def _remove_dropped(folder: Path) -> None:
    """Remove a replaced run, and in it one that could not be removed when this one began."""
    if not folder.is_dir():
        return
    _remove_dropped(folder / DROPPED)
    if is_run(folder):
        remove_run(folder)
    remove_folders(folder)
    with suppress(OSError):  # a file that another program still has open, or one of the user
        folder.rmdir()


def _move_all(source: Path, target: Path) -> None:
    for path in sorted(source.iterdir(), key=lambda path: path.name == CONFIG_NAME):
        place = target / path.name
        if place.is_dir() and path.is_dir() and not path.is_symlink():  # moved in part, or with a file of the user
            _move_all(path, place)
        else:
            path.replace(place)
    source.rmdir()
