"""`cyclemlp demo`: a task from start to finish, on the sample that comes as a package."""

import logging
import sys
from dataclasses import replace
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

EARTH = "earth.png"
RESULT = "result.json"
RUN, BACKBONE = "run", "backbone"


def demo(*, task: str | None = None, out: Path | None = None, max_time: str | None = None, json: bool = False) -> None:
    """Train on satellite images of the Earth, score where the network never trained, and draw its predictions.

    Takes seven minutes or so on two idle processor cores and at most twelve, and nine more for boxes or outlines, which
    start from the first one's backbone; needs no download. Called again, it continues where it was stopped, or scores
    and draws the finished run again.

    Parameters
    ----------
    task
        What is learnt: ocean, land and lakes pixel by pixel (segmentation, the default), boxes (detection) or outlines
        (instance-segmentation) of islands and lakes. The last two begin with the backbone of the first one's finished
        demo in the folder demo/, or else train it first, in backbone/ next to their run.
    out
        Folder for the run (run/), the image (earth.png) and the scores (result.json); by default demo, for the other
        tasks demo-TASK.
    max_time
        Training time instead of the recipe's, such as 2m; of the backbone as well, where it is trained.
    json
        Print one JSON object instead of the table.
    """
    task = task or next(name for name, each in _demos().items() if each.starts_from is None)
    shown = _demo_of(task)
    out = out or _default_folder(task)
    data = shown.prepare()
    config = _config(task, data, out / RUN, max_time)
    if shown.starts_from is not None and not config.resume:
        config = replace(config, init=_backbone(shown.starts_from, out, max_time))
    try:
        metrics = _train(task, config)
        _draw(shown, data, out)
    except KeyboardInterrupt:
        _logger.info("stopped; the same command continues from what %s holds", out)
        raise
    result = _result(shown, task, out, metrics)
    write_json(out / RESULT, result)
    sys.stdout.write(dumps(result) + "\n" if json else _text(shown.table(metrics), out))


def _demos() -> dict[str, SampleDemo]:
    return {name: shown for name in task_names() if (shown := get_task(name).demo) is not None}


def _demo_of(task: str) -> SampleDemo:
    shown = _demos()
    if task not in shown:
        raise ConfigError(f"--task {task}: the demo has {', '.join(shown)}.{did_you_mean(task, shown)}")
    return shown[task]


def _default_folder(task: str) -> Path:
    return Path("demo" if _demo_of(task).starts_from is None else f"demo-{task}")


def _backbone(task: str, out: Path, max_time: str | None) -> Path:
    """The run to start from: that of the finished demo of `task`, or one trained below `out`, now or earlier."""
    finished = _default_folder(task)
    if (finished / RESULT).is_file():
        _logger.info("starting from the backbone of the demo in %s", finished)
        return finished / RUN
    _logger.info("first the backbone: the demo of %s, without its image", task)
    config = _config(task, _demo_of(task).prepare(), out / BACKBONE, max_time)
    _train(task, config)
    return config.out


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

    _logger.info("drawing the Earth")
    predictor = Predictor.load(out / RUN)
    write_png(out / EARTH, shown.draw(partial(predictor.predict, progress=True), predictor.card.classes, data))


def _result(shown: SampleDemo, task: str, out: Path, metrics: JsonMapping) -> JsonObject:
    """Scores, with what a reader needs to judge or repeat them."""
    from cyclemlp.tasks.recipes import read_run_config
    from cyclemlp.training.run_record import read_record, training_sessions

    training = _length(out / RUN)
    start = read_run_config(out / RUN).get("init")
    if shown.starts_from is not None and start is not None:
        training["start"] = {"task": shown.starts_from, **_length(Path(start))}
    record = read_record(out / RUN)
    assert record is not None  # training has just written it
    trained = {name: value for name, value in training_sessions(record)[-1].items() if name != "argv"}
    command = "cyclemlp demo" if shown.starts_from is None else f"cyclemlp demo --task {task}"
    return {
        "task": task,
        "data": shown.data_name,
        "split": "val",
        "run": str(out / RUN),
        "earth": str(out / EARTH),
        "metrics": metrics,
        "training": training,
        "environment": {**trained, "command": command},
    }


def _length(run: Path) -> JsonObject:
    """Steps and seconds of a finished training."""
    from cyclemlp.training.recorder import read_metrics

    rows = read_metrics(run)
    return {"steps": int(rows[-1]["step"]), "seconds": max(float(row["seconds"] or 0) for row in rows)}


def _text(table: list[str], out: Path) -> str:
    lines = ["", *table, "", f"image    {out / EARTH}", f"report   {out / RUN / 'report.html'}", ""]
    return "\n".join(lines)
