"""`cyclemlp demo`: a task from start to finish, on the sample that comes as a package."""

import logging
import sys
from functools import partial
from json import dumps
from pathlib import Path

from cyclemlp.errors import ConfigError, did_you_mean
from cyclemlp.files import JsonMapping, JsonObject, write_json, write_png
from cyclemlp.tasks.build_config import build_config
from cyclemlp.tasks.options import RunConfig, flat
from cyclemlp.tasks.registry import get_task, task_names
from cyclemlp.tasks.sample_demo import SampleDemo

_logger = logging.getLogger(__name__)

RESULT, RUN = "result.json", "run"


def demo(*, task: str | None = None, out: Path | None = None, max_time: str | None = None, json: bool = False) -> None:
    """Train on satellite images of the Earth, score where the network never trained, and draw its predictions.

    Takes about six minutes on an idle processor core and at most twelve, detection and instance segmentation ten;
    needs no download. Called again, it continues where it was stopped, or scores and draws the finished run again.

    Parameters
    ----------
    task
        What is learnt: ocean, land and lakes pixel by pixel (segmentation, the default), boxes (detection) or outlines
        (instance-segmentation) of handwritten digits on pieces of the Earth.
    out
        Folder for the run (run/), the image (earth.png or digits.png) and the scores (result.json); by default demo,
        for the other tasks demo-TASK.
    max_time
        Time instead of the recipe's, such as 2m.
    json
        Print one JSON object instead of the table.
    """
    task = task or next(name for name, each in _demos().items() if each.by_default)
    shown = _demo_of(task)
    out = out or Path("demo" if shown.by_default else f"demo-{task}")
    data = shown.prepare()
    config = _config(task, data, out / RUN, max_time)
    try:
        metrics = _train(task, config)
        _draw(shown, data, out)
    except KeyboardInterrupt:
        _logger.info("stopped; the same command continues from what %s holds", out)
        raise
    result = _result(shown, task, out, metrics)
    write_json(out / RESULT, result)
    sys.stdout.write(dumps(result) + "\n" if json else _text(shown, metrics, out))


def _demos() -> dict[str, SampleDemo]:
    return {name: shown for name in task_names() if (shown := get_task(name).demo) is not None}


def _demo_of(task: str) -> SampleDemo:
    shown = _demos()
    if task not in shown:
        raise ConfigError(f"--task {task}: the demo has {', '.join(shown)}.{did_you_mean(task, shown)}")
    return shown[task]


def _config(task: str, data: Path, run_dir: Path, max_time: str | None) -> RunConfig:
    """The recipe of the sample as `cyclemlp train TASK` reads it, or the run to continue."""
    from cyclemlp.tasks.recipes import CONFIG_NAME, read_run_config

    options: JsonObject = {"data": data, "out": run_dir} | ({"max-time": max_time} if max_time else {})
    config = build_config(task, options, recipe=_demo_of(task).recipe)
    if not (run_dir / CONFIG_NAME).is_file():
        return config
    before = read_run_config(run_dir)
    if before.get("head") != flat(config)["head"]:
        raise ConfigError(
            f"--out {run_dir.parent} holds the demo of another task (its head is {before.get('head')}):"
            " choose another folder"
        )
    return build_config(task, options | {"resume": True})


def _train(task: str, config: RunConfig) -> JsonMapping:
    from cyclemlp.api import train_with
    from cyclemlp.training.stopping import TrainingStopped

    try:
        run = train_with(task, config)
    except TrainingStopped as stopped:
        _logger.info("stopped at step %d; the same command continues from there", stopped.step)
        sys.exit(128 + stopped.signum)
    if run.doubts:
        _logger.warning("the network is %s", run.doubts)
    return run.metrics


def _draw(shown: SampleDemo, data: Path, out: Path) -> None:
    from cyclemlp.inference.predictor import Predictor

    _logger.info("drawing")
    predictor = Predictor.load(out / RUN)
    write_png(out / shown.picture, shown.draw(partial(predictor.predict, progress=True), predictor.card.classes, data))


def _result(shown: SampleDemo, task: str, out: Path, metrics: JsonMapping) -> JsonObject:
    """Scores, with what a reader needs to judge or repeat them."""
    from cyclemlp.training.run_record import read_record, training_sessions

    record = read_record(out / RUN)
    assert record is not None  # training has just written it
    trained = {name: value for name, value in training_sessions(record)[-1].items() if name != "argv"}
    command = "cyclemlp demo" if shown.by_default else f"cyclemlp demo --task {task}"
    return {
        "task": task,
        "data": shown.data_name,
        "split": "val",
        "run": str(out / RUN),
        "picture": str(out / shown.picture),
        "metrics": metrics,
        "training": _length(out / RUN),
        "environment": {**trained, "command": command},
    }


def _length(run: Path) -> JsonObject:
    """Steps and seconds of a finished training."""
    from cyclemlp.training.recorder import read_metrics

    rows = read_metrics(run)
    return {"steps": int(rows[-1]["step"]), "seconds": max(float(row["seconds"] or 0) for row in rows)}


def _text(shown: SampleDemo, metrics: JsonMapping, out: Path) -> str:
    files = [f"image    {out / shown.picture}", f"report   {out / RUN / 'report.html'}"]
    return "\n".join(["", *shown.table(metrics), "", *files, ""])
