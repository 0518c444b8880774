"""`run.json`: the data of a run, and for each start its command, machine, versions and the load by other programs.

A table takes its facts from here, never from the moment at which it is made. A resumed run appends a session, and is
refused where its classes or labels are no longer those that it began with.
"""

import math
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cyclemlp.data.datasets import ClassifiedDataset
from cyclemlp.data.fingerprint import data_digest, labels_digest
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.objects import DetectionDataset
from cyclemlp.data.problems import REQUIRED_SPLITS
from cyclemlp.documents import DocumentError, read_json
from cyclemlp.errors import ConfigError
from cyclemlp.files import JsonObject, write_json
from cyclemlp.machine import ForeignLoad, environment, own_seconds
from cyclemlp.tasks.base import Dataset
from cyclemlp.tasks.card import CARD_NAME, WEIGHTS_NAME, read_card
from cyclemlp.tasks.options import RunConfig, flat
from cyclemlp.tasks.registry import AnyTask
from cyclemlp.tasks.run_names import RECORD_NAME
from cyclemlp.training.recorder import read_metrics

FORMAT = 1


class Session:
    """One start of a run: recorded when it begins, completed when it ends, in whatever way short of being killed."""

    def __init__(self, task: AnyTask, config: RunConfig, dataset: Dataset) -> None:
        self._path = config.run_dir / RECORD_NAME
        self._load = ForeignLoad(own_seconds)
        before = read_record(config.run_dir) if config.resume else None
        about: JsonObject = {"format": FORMAT, "task": task.name, "seed": config.machine.seed, **identity(dataset)}
        sessions = [] if before is None else before["sessions"]
        started = {
            **environment(training_command(task, flat(config)), torch.get_num_threads(), []),
            "argv": sys.argv,
            "seed": config.machine.seed,
            "data": _digest(dataset),
            "from_step": _last(config.run_dir)["step"] if config.resume else 0,
            "load_average": _load_average(),
        }
        self._record = {**about, "sessions": [*sessions, started]}
        write_json(self._path, self._record)

    def end(self) -> None:
        """Add the step that was reached, and the mean load by other programs, in cores. A removed run stays removed."""
        if not self._path.is_file():
            return
        share = self._load.share()
        foreign = None if share is None else round(share * (os.cpu_count() or 1), 3)
        self._record["sessions"][-1] |= {**_last(self._path.parent), "foreign_load": foreign}
        write_json(self._path, self._record)


def identity(dataset: Dataset) -> JsonObject:
    """What may not change within a run: names and numbers of the classes, and a digest of the labels."""
    numbers = dataset.category_ids if isinstance(dataset, DetectionDataset) else ()
    known = isinstance(dataset, MaskDataset | DetectionDataset | ClassifiedDataset)
    labels = labels_digest(dataset, _splits(dataset)) if known else None  # type: ignore[arg-type]
    return {"classes": list(dataset.classes), "category_ids": list(numbers), "labels": labels}


def read_record(run_dir: Path) -> JsonObject | None:
    """The record of a run; None where an earlier version wrote none. Raises ConfigError for one that is damaged."""
    path = run_dir / RECORD_NAME
    if not path.is_file():
        return None
    try:
        record: JsonObject = read_json(path)
        if record["format"] == FORMAT and isinstance(record["sessions"], list):
            return record
    except (DocumentError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not readable ({error}): restore it, or begin a new run") from error
    raise ConfigError(f"{path} was written by another version of cyclemlp: update it, or begin a new run")


def training_sessions(record: JsonObject) -> list[JsonObject]:
    """The sessions that took steps: one that only scored a finished run again says nothing about its network."""
    return [each for each in record["sessions"] if each.get("step", math.inf) > each["from_step"]]


def refuse_other_data(config: RunConfig, dataset: Dataset) -> None:
    """Raise ConfigError where the run in `config.run_dir` was trained on classes or labels that are not those given."""
    before = read_record(config.run_dir) or _of_card(config.run_dir)
    now = identity(dataset)
    if before is None or all(before.get(name, value) == value for name, value in now.items()):
        return
    finished = (config.run_dir / WEIGHTS_NAME).is_file()
    start = f"start a new run with --init {config.run_dir} and another --out" if finished else "begin a new run"
    further = "" if finished else " (--init takes the weights of a finished one)"
    what = _difference(before, now)
    raise ConfigError(f"--resume {config.run_dir}: {what} in {config.data}: restore the data, or {start}{further}")


def training_command(task: AnyTask, options: Mapping[str, Any], hidden: Sequence[str] = ()) -> str:
    """The command of a run with these options, by their names; defaults and `hidden` ones are left out."""
    usual = flat(task.config(data=Path()))
    words = ["cyclemlp", "train", task.name]
    for name, value in options.items():
        if name in hidden or (name in usual and usual[name] == value):
            continue
        given = [] if value is True else map(str, value) if isinstance(value, list) else [str(value)]
        words += [f"--{name}", *given]
    return shlex.join(words)


def _difference(before: JsonObject, now: JsonObject) -> str:
    """What is no longer the same, in words."""
    old, new = before["classes"], now["classes"]
    if old == new:
        same_numbers = before.get("category_ids", now["category_ids"]) == now["category_ids"]
        return (
            "the labels are not those of the run" if same_numbers else "the categories have other ids than in the run"
        )
    gone, added = [name for name in old if name not in new], [name for name in new if name not in old]
    if not gone and not added:
        return f"the classes are in another order ({', '.join(old[:6])} in the run, {', '.join(new[:6])} now)"
    words = [f"{name!r} is gone" for name in gone[:3]] + [f"{name!r} is new" for name in added[:3]]
    return f"the classes are not those of the run ({len(old)} then, {len(new)} now; {', '.join(words)})"


def _of_card(run_dir: Path) -> JsonObject | None:
    """What is known of a run without a record: the classes of its network, if it was finished."""
    if not (run_dir / CARD_NAME).is_file() or not (run_dir / WEIGHTS_NAME).is_file():
        return None
    return {"classes": list(read_card(run_dir).classes)}


def _splits(dataset: Dataset) -> list[str]:
    return [name for name in REQUIRED_SPLITS if name in dataset.splits]


def _digest(dataset: Dataset) -> str | None:
    known = isinstance(dataset, MaskDataset | DetectionDataset | ClassifiedDataset)
    return data_digest(dataset, _splits(dataset)) if known else None  # type: ignore[arg-type]


def _last(run_dir: Path) -> JsonObject:
    """The last step in metrics.csv, and the seconds of training until then."""
    rows = read_metrics(run_dir)
    step = max((int(row["step"]) for row in rows), default=0)
    return {"step": step, "seconds": max((float(row.get("seconds") or 0) for row in rows), default=0.0)}


def _load_average() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
