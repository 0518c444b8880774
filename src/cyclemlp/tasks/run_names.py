"""Which folder a run is in: the one that is continued, and the names that are tried where none is given."""

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from cyclemlp.documents import DocumentError, read_json
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.aside import is_waiting, settle
from cyclemlp.tasks.recipes import CONFIG_NAME

RUNS = Path("runs")
RECORD_NAME = "run.json"
"""The file in a run folder that says what was run."""


def default_folders(task: str) -> Iterator[Path]:
    """runs/TASK, runs/TASK-2, runs/TASK-3 and so on."""
    yield RUNS / task
    for number in count(2):
        yield RUNS / f"{task}-{number}"


def folder_to_resume(task: str, resume: bool | Path, out: Path | None) -> Path:
    """The run that `--resume`, with its folder or with that of `--out`, continues.

    Without either it is the only one under the default names. Raises ConfigError where two are given, where there are
    several, and for a run of another task.
    """
    if isinstance(resume, Path) and out is not None and resume.resolve() != out.resolve():
        raise ConfigError(f"--resume {resume} and --out {out} are two folders: a run stays in its own, leave --out out")
    run_dir = resume if isinstance(resume, Path) else out or _only_run(task)
    settle(run_dir)
    trained = _task_of(run_dir)
    if trained not in (None, task):
        raise ConfigError(f"{run_dir} is a run of {trained}: cyclemlp train {trained} --resume {run_dir}")
    return run_dir


def _only_run(task: str) -> Path:
    named = re.compile(rf"{re.escape(task)}(?:-(\d+))?")
    found = [(int(match[1] or 1), path) for path in RUNS.glob(f"{task}*") if (match := named.fullmatch(path.name))]
    runs = [path for _, path in sorted(found) if (path / CONFIG_NAME).is_file() or is_waiting(path)]
    if len(runs) > 1:
        raise ConfigError(f"--resume: {RUNS} has {len(runs)} runs of {task}: name one, such as --resume {runs[-1]}")
    return runs[0] if runs else RUNS / task


def _task_of(run_dir: Path) -> str | None:
    """The task of a run, None where its record does not say it."""
    try:
        record = read_json(run_dir / RECORD_NAME)
    except (DocumentError, OSError):
        return None
    task = record.get("task") if isinstance(record, dict) else None
    return task if isinstance(task, str) else None
