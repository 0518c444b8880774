"""`--logger`: where the numbers of a run go in addition to metrics.csv: TensorBoard, MLflow, Weights & Biases.

All of them write into the run folder and send nothing. They are called through their own clients and not through
Lightning's wrappers, because the wrapper for MLflow removes the letters of most scripts from the names of classes and
changes the tracking address of the whole process, and the one for Weights & Biases takes over a run that is in progress
in the process, which may be online, and counts steps from zero in a resumed one.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from cyclemlp.errors import UserError, reason_of
from cyclemlp.files import JsonObject
from cyclemlp.tasks.replacing import make_library_folder
from cyclemlp.training.event_file import EventFile

Ending = Literal["finished", "stopped", "failed"]
PROJECT = "cyclemlp"
"""Name of MLflow's experiment and of the project of Weights & Biases."""
_LONGEST_NAME = 200
_PARAMS_PER_CALL = 100  # MLflow refuses more

_logger = logging.getLogger(__name__)


class RunLogger(Protocol):
    """One place where the numbers of a run go. Any error of its methods ends the logger, not the run."""

    def add(self, step: int, values: Mapping[str, float], /) -> None:
        """Record the values of a step."""
        ...

    def close(self, ending: Ending, /) -> None:
        """Finish what is recorded."""
        ...


class RunLoggers:
    """The loggers of a run, by their names in `--logger`. One that fails is off from then on, with one warning."""

    def __init__(
        self, names: Sequence[str], run_dir: Path, columns: Sequence[str], options: JsonObject, after_step: int
    ) -> None:
        self._open = dict[str, RunLogger]()
        makers: dict[str, Callable[[], RunLogger]] = {
            "tensorboard": partial(TensorBoardLogger, run_dir, options, after_step),
            "mlflow": partial(MlflowLogger, run_dir, columns, options),
            "wandb": partial(WandbLogger, run_dir, options),
        }
        for name in dict.fromkeys(names):
            if name in makers:  # csv is metrics.csv, which every run has
                self._attempt(name, partial(self._start, name, makers[name]))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values of a step everywhere."""
        for name, logger in list(self._open.items()):
            self._attempt(name, partial(logger.add, step, values))

    def close(self, ending: Ending) -> None:
        """Finish all of them."""
        for name, logger in list(self._open.items()):
            self._attempt(name, partial(logger.close, ending))
        self._open.clear()

    def _start(self, name: str, make: Callable[[], RunLogger]) -> None:
        self._open[name] = make()

    def _attempt(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except UserError:
            raise  # another process of the run has failed meanwhile
        except Exception as error:  # noqa: BLE001  whatever a library raises, the run is worth more than its curves
            reason = reason_of(error)
            _logger.warning("--logger %s is off from here on (%s); the run goes on, see metrics.csv", name, reason)
            failed = self._open.pop(name, None)
            with suppress(Exception):
                if failed is not None:
                    failed.close("failed")


class TensorBoardLogger:
    """TensorBoard's event files in `tensorboard/`."""

    def __init__(self, run_dir: Path, options: JsonObject, after_step: int) -> None:
        self._events = EventFile(run_dir / "tensorboard", after_step + 1, options)

    def add(self, step: int, values: Mapping[str, float], /) -> None:
        """Record the values of a step."""
        self._events.add(step, values)

    def close(self, ending: Ending, /) -> None:
        """Close the file; how the run ended has no place in it."""
        del ending
        self._events.close()


class MlflowLogger:
    """A run of MLflow, in the database `mlflow/mlflow.db`; a resumed run continues the one that is there."""

    def __init__(self, run_dir: Path, columns: Sequence[str], options: JsonObject) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at the first import
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):  # which say that they create tables
            logging.getLogger(name).setLevel(logging.WARNING)
        folder = run_dir.resolve() / "mlflow"
        make_library_folder(folder)
        self._client = MlflowClient(f"sqlite:///{(folder / 'mlflow.db').as_posix()}")
        self._names = mlflow_names(columns)
        self._run_id = self._continued() or self._begun(folder, run_dir.resolve().name)
        self._add_options(options)

    def add(self, step: int, values: Mapping[str, float], /) -> None:
        """Record the values of a step."""
        from mlflow.entities import Metric

        now = time.time_ns() // 10**6
        metrics = [Metric(self._names[name], float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self, ending: Ending, /) -> None:
        """Set the status of the run."""
        status = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}[ending]
        self._client.set_terminated(self._run_id, status)

    def _continued(self) -> str | None:
        experiment = self._client.get_experiment_by_name(PROJECT)
        runs = [] if experiment is None else self._client.search_runs([experiment.experiment_id], max_results=1)
        for run in runs:
            self._client.update_run(run.info.run_id, "RUNNING")
        return runs[0].info.run_id if runs else None

    def _begun(self, folder: Path, name: str) -> str:
        experiment = self._client.create_experiment(PROJECT, artifact_location=(folder / "artifacts").as_uri())
        return self._client.create_run(experiment, run_name=name).info.run_id

    def _add_options(self, options: JsonObject) -> None:
        """As parameters. MLflow keeps the first value of each, so those that a continuation changes stay."""
        from mlflow.entities import Param

        known = self._client.get_run(self._run_id).data.params
        params = [Param(name, str(value)) for name, value in options.items() if name not in known]
        for start in range(0, len(params), _PARAMS_PER_CALL):
            self._client.log_batch(self._run_id, params=params[start : start + _PARAMS_PER_CALL])


class WandbLogger:
    """A run of Weights & Biases, offline, in `wandb/`.

    A continuation has the identity of the run before it, in a folder of its own: `wandb sync` joins them.
    """

    def __init__(self, run_dir: Path, options: JsonObject) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at the first import
        import wandb

        make_library_folder(run_dir / "wandb")
        earlier = sorted((run_dir / "wandb").glob("offline-run-*-*"))
        self._run = wandb.init(
            project=PROJECT,
            name=run_dir.resolve().name,
            dir=run_dir.resolve(),
            id=earlier[-1].name.rpartition("-")[2] if earlier else None,
            resume="allow",
            mode="offline",
            reinit="create_new",  # not a run that is in progress in this process
            config=dict(options),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def add(self, step: int, values: Mapping[str, float], /) -> None:
        """Record the values of a step; those of two calls for the same step are joined."""
        self._run.log(dict(values), step=step)

    def close(self, ending: Ending, /) -> None:
        """Write what is not written yet, and end the process that writes it."""
        self._run.finish(exit_code=int(ending == "failed"))


def mlflow_names(columns: Sequence[str]) -> dict[str, str]:
    """The name in MLflow of each column: letters of all scripts stay, what it does not allow is `_`; no two agree."""
    names = dict[str, str]()
    for number, column in enumerate(columns):
        kind, slash, name = column.partition("/")
        name = re.sub(r"[^\w.\- ]", "_", name)[:_LONGEST_NAME]
        name = kind + slash + (f"{name}_" if slash and not name.strip(".") else name)
        names[column] = f"{name}_{number}" if name in names.values() else name
    return names
