"""`--logger`: what each library has stored is read back with the library's own reader."""

import errno
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data
from training_runs import train_segmentation
from wandb.proto.wandb_internal_pb2 import Record

from benchmarks.failing_disk import FailingDisk
from cyclemlp.errors import ConfigError, MissingExtraError
from cyclemlp.tasks import early_checks
from cyclemlp.tasks.options import Length, LoggerName, Recording
from cyclemlp.tasks.replacing import check_replaceable, remove_run
from cyclemlp.tasks.segmentation.config import SegmentationConfig
from cyclemlp.training import loggers, loop
from cyclemlp.training.loggers import MlflowLogger, RunLoggers, mlflow_names
from cyclemlp.training.recorder import read_metrics

Configured = Callable[..., SegmentationConfig]
ALL: tuple[LoggerName, ...] = ("csv", "tensorboard", "mlflow", "wandb")


def mlflow_run(run_dir: Path) -> tuple[MlflowClient, Any]:
    """The only run in the folder."""
    client = MlflowClient(f"sqlite:///{run_dir.resolve() / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("cyclemlp")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def mlflow_curve(run_dir: Path, name: str) -> list[tuple[int, float]]:
    client, run = mlflow_run(run_dir)
    return [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]


def wandb_records(path: Path) -> Iterator[Record]:
    """Of a .wandb file: LevelDB's log format, after a header of seven bytes."""
    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def wandb_files(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "wandb").glob("offline-run-*/*.wandb"))


def wandb_curve(path: Path, name: str) -> list[tuple[int, float]]:
    curve = []
    for record in wandb_records(path):
        items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        if name in items:
            curve.append((int(items["_step"]), float(items[name])))
    return curve


def wandb_options(path: Path) -> dict[str, str]:
    found = dict[str, str]()
    for record in wandb_records(path):
        for config in (record.run.config, record.config):
            found |= {item.key: item.value_json for item in config.update}
    return found


def tensorboard(run_dir: Path) -> EventAccumulator:
    shown = EventAccumulator(str(run_dir / "tensorboard"))
    shown.Reload()
    return shown


@pytest.mark.usefixtures("small_networks")
def test_each_library_has_the_whole_run(configured: Configured) -> None:
    """Losses, scores, learning rate and options; then the same run continued, as one curve."""
    recording = Recording(evaluations=2, log_every=1, logger=ALL)
    config = configured(steps=2, recording=recording)
    run_dir = train_segmentation(config)
    assert mlflow_run(run_dir)[1].info.status == "FINISHED"
    train_segmentation(replace(config, resume=True, length=Length(steps=4)))

    rows = read_metrics(run_dir)
    lr = [(int(row["step"]), float(row["lr"])) for row in rows if row["lr"]]
    assert [step for step, _ in lr] == [1, 2, 3, 4]
    score = float(rows[-1]["mIoU"])

    _, run = mlflow_run(run_dir)
    assert run.info.status == "FINISHED"
    assert run.data.params["batch-size"] == "2"
    assert run.data.params["data"] == str(config.data)
    assert [step for step, _ in mlflow_curve(run_dir, "loss")] == [1, 2, 3, 4]
    assert [value for _, value in mlflow_curve(run_dir, "lr")] == pytest.approx([value for _, value in lr], rel=1e-5)
    assert mlflow_curve(run_dir, "mIoU")[-1] == pytest.approx((4, score), rel=1e-5)
    assert mlflow_curve(run_dir, "IoU/red")[-1][0] == 4

    first, second = wandb_files(run_dir)
    assert first.stem.rpartition("-")[2] == second.stem.rpartition("-")[2]  # the same run
    assert [step for step, _ in wandb_curve(first, "loss")] == [1, 2]
    assert [step for step, _ in wandb_curve(second, "loss")] == [3, 4]
    assert wandb_curve(second, "mIoU")[-1] == pytest.approx((4, score), rel=1e-5)
    assert wandb_curve(second, "lr")[-1] == pytest.approx((4, lr[-1][1]), rel=1e-5)
    assert wandb_options(first)["batch-size"] == "2"
    assert wandb_options(second)["steps"] == "4"

    shown = tensorboard(run_dir)
    assert [event.step for event in shown.Scalars("loss")] == [1, 2, 3, 4]
    assert shown.Scalars("mIoU")[-1].value == pytest.approx(score, rel=1e-5)
    options = parse_session_start_info_plugin_data(
        shown.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    ).hparams
    assert options["batch-size"].number_value == 2
    assert options["model"].string_value == config.model


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("names", [("csv",), ("tensorboard",)])
def test_nothing_else_is_written(names: Any, configured: Configured) -> None:
    recording = Recording(evaluations=1, log_every=1, logger=names)
    run_dir = train_segmentation(configured(steps=1, recording=recording))
    found = {path.name for path in run_dir.iterdir() if path.is_dir()}
    assert found == {"checkpoints", *(name for name in names if name != "csv")}


@pytest.mark.usefixtures("small_networks")
def test_how_a_run_ends_is_its_status_in_mlflow(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a fault")

    config = configured(steps=2, recording=Recording(evaluations=1, log_every=1, logger=("mlflow",)))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", fails)
        with pytest.raises(RuntimeError, match="a fault"):
            train_segmentation(config)
    assert mlflow_run(config.run_dir)[1].info.status == "FAILED"


@pytest.mark.usefixtures("small_networks")
def test_a_logger_that_fails_does_not_end_the_run(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_self: MlflowLogger, step: int, _values: object, /) -> None:
        raise MlflowException(f"no more at step {step}")

    monkeypatch.setattr(MlflowLogger, "add", fails)
    recording = Recording(evaluations=1, log_every=1, logger=("mlflow", "tensorboard"))
    run_dir = train_segmentation(configured(steps=3, recording=recording))
    words = [each.message for each in caplog.records if each.levelno == logging.WARNING and "--logger" in each.message]
    assert words == ["--logger mlflow is off from here on (no more at step 1); the run goes on, see metrics.csv"]
    assert [event.step for event in tensorboard(run_dir).Scalars("loss")] == [1, 2, 3]
    assert [row["step"] for row in read_metrics(run_dir) if row["loss"]] == ["1", "2", "3"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the disk that fails finds the names in /proc")
def test_a_full_disk_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    operations = ["-"]
    while operations[-1]:
        folder = tmp_path / str(len(operations))
        folder.mkdir()
        caplog.clear()
        disk = FailingDisk(folder, "full", len(operations))
        with disk.in_use():
            opened = RunLoggers(("tensorboard",), folder, ["loss"], {"lr": 1.0}, 0)
            for step in (1, 2):
                opened.add(step, {"loss": 0.5})
            opened.close("finished")
        assert len(caplog.messages) == bool(disk.met), disk.met
        assert all(os.strerror(errno.ENOSPC) in words for words in caplog.messages)
        operations.append(disk.met)
    assert sum("tensorboard/" in each for each in operations) == 4  # opened, its beginning, then two rows


def test_names_that_mlflow_does_not_allow() -> None:
    columns = [
        "AP",
        "IoU/Gebäude",
        "IoU/дорога",
        "IoU/建物",
        "IoU/a,b",
        "IoU/a;b",
        "IoU/..",
        "IoU/a/b",
        "IoU/" + "x" * 300,
    ]
    names = mlflow_names(columns)
    assert list(names)[:4] == list(names.values())[:4]
    assert [names[column] for column in columns[4:8]] == ["IoU/a_b", "IoU/a_b_5", "IoU/.._", "IoU/a_b_7"]
    assert len(set(names.values())) == len(columns)


def test_mlflow_takes_every_name(tmp_path: Path) -> None:
    columns = ["AP", "AP/cat", "IoU/дорога", "IoU/a,b", "IoU/..", "IoU/" + "x" * 300, 'IoU/"q"', "IoU/\u2028"]
    logger = MlflowLogger(tmp_path, columns, {"lr": 1.0, "text": "x" * 400})
    logger.add(1, dict.fromkeys(columns, 0.5))
    logger.close("stopped")
    _, run = mlflow_run(tmp_path)
    assert len(run.data.metrics) == len(columns)
    assert run.info.status == "KILLED"
    assert run.data.params["text"] == "x" * 400


@pytest.mark.parametrize("missing", ["mlflow", "sqlalchemy", "wandb"])
def test_a_missing_package_is_found_before_anything_is_trained(
    missing: str, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a folder of that name, such as that of an earlier run, looks like the package."""
    monkeypatch.setattr(
        early_checks, "find_spec", lambda name: ModuleSpec(name, None, origin=None if name == missing else "a file")
    )
    extra: LoggerName = "wandb" if missing == "wandb" else "mlflow"
    config = configured(steps=1, recording=Recording(evaluations=1, logger=("csv", extra)))
    with pytest.raises(MissingExtraError) as refused:
        train_segmentation(config)
    assert str(refused.value) == f"this needs {missing}, which is not installed: pip install 'cyclemlp[{extra}]'"
    assert not config.run_dir.exists()


def test_an_unknown_logger_is_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        Recording(logger=("mlflow", "comet"))  # type: ignore[arg-type]
    assert str(refused.value) == "--logger 'comet' is not allowed: of csv, tensorboard, mlflow, wandb"


def test_nothing_goes_to_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says of servers."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_MODE", "online")
    opened = RunLoggers(("mlflow", "wandb"), tmp_path, ["loss"], {"lr": 1.0}, 0)
    opened.add(1, {"loss": 0.5})
    opened.close("finished")
    assert mlflow_curve(tmp_path, "loss") == [(1, 0.5)]
    assert wandb_curve(wandb_files(tmp_path)[0], "loss") == [(1, 0.5)]
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:9"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert loggers.PROJECT == "cyclemlp"


@pytest.mark.usefixtures("small_networks")
def test_only_the_folders_that_the_run_has_made_go_with_it(configured: Configured) -> None:
    recording = Recording(evaluations=1, log_every=1, logger=("mlflow", "wandb"))
    config = configured(steps=1, recording=recording)
    run_dir = train_segmentation(config)
    check_replaceable(run_dir)
    shutil.rmtree(run_dir / "wandb")
    (run_dir / "wandb").mkdir()
    train_segmentation(replace(config, resume=True, length=Length(steps=2)))
    with pytest.raises(ConfigError, match=f"{run_dir} also holds wandb, which this run did not write"):
        check_replaceable(run_dir)
    remove_run(run_dir)
    assert wandb_files(run_dir)
    assert not (run_dir / "mlflow").exists()
