"""The check before training and before an evaluation: what `cyclemlp data` finds, by the same code."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from cyclemlp.data.check_cache import Remembered, recall, remember, state_of
from cyclemlp.data.datasets import ClassifiedDataset
from cyclemlp.data.file_reports import TimeLimit
from cyclemlp.data.formats.registry import AnyDataset
from cyclemlp.data.inspect import inspect_files
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.objects import DetectionDataset
from cyclemlp.data.problems import Findings, Problem, log_notes
from cyclemlp.progress import FIRST_LINE

MAX_SECONDS = 60.0
"""Time for reading files; in larger collections files spread evenly over the whole are read."""

_LOG = logging.getLogger(__name__)


def check_files(dataset: object, splits: Sequence[str], max_seconds: float = MAX_SECONDS) -> None:
    """Read the files of these splits and log what is worth a note; remembers what it found.

    Raises DataError for the first problem, with the number of further ones. A data set of a type that `cyclemlp data`
    does not know is left to its task.
    """
    if not isinstance(dataset, MaskDataset | DetectionDataset | ClassifiedDataset):
        return
    if isinstance(dataset, MaskDataset) and dataset.chosen_from is not None:
        dataset = dataset.chosen_from  # its masks hold all classes
    found = _found(dataset, splits, max_seconds)
    wanted = ("", *splits)
    Findings([problem for problem in found.problems if problem.split in wanted]).check(dataset.root)
    log_notes([note for note in found.notes if note.split in wanted], dataset.root)


def _found(dataset: AnyDataset, splits: Sequence[str], max_seconds: float) -> Remembered:
    """What the files of the splits hold, from the cache where their state is a known one."""
    state = state_of(dataset)
    if (known := recall(dataset, state)) is not None:
        return known
    chosen = _only(dataset, splits)
    return recall(chosen, state) or _read(chosen, state, max_seconds)


def _read(dataset: AnyDataset, state: str, max_seconds: float) -> Remembered:
    started = time.monotonic()
    limit = TimeLimit(max_seconds, _count(dataset))
    total = limit.files
    report = inspect_files(dataset, limit)
    seconds = time.monotonic() - started
    found = Remembered(report.problems, report.notes)
    if limit.unread:
        what = f"has {total} files, of which {total - limit.unread}, spread evenly, were read before the first step"
        note = Problem(dataset.root, "", what, f"cyclemlp data {dataset.root} reads all, once")
        found = Remembered(report.problems, (note, *report.notes))
    elif seconds > FIRST_LINE:
        _LOG.info("%s: %d files read in %.0f s, which is remembered", dataset.root, total, seconds)
    remember(dataset, state, *found)
    return found


def _only(dataset: AnyDataset, splits: Sequence[str]) -> AnyDataset:
    kept = {name: split for name, split in dataset.splits.items() if name in splits}
    return replace(dataset, splits=kept)  # type: ignore[arg-type]


def _count(dataset: AnyDataset) -> int:
    if not isinstance(dataset, MaskDataset):
        return sum(len(split.images) for split in dataset.splits.values())
    return sum(
        len(split.images) + len(split.other_images) + len({*split.masks, *split.other_masks})
        for split in dataset.splits.values()
    )
