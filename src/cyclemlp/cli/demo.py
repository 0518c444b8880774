"""`cyclemlp demo`: a task from start to picture, on the sample that comes as a package."""

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from cyclemlp.cli.task_modules import task_module
from cyclemlp.errors import ConfigError
from cyclemlp.files import write_json
from cyclemlp.tasks.options import RunConfig, flat

if TYPE_CHECKING:
    from PIL import Image

    from cyclemlp.inference.predictor import Predictor

_logger = logging.getLogger(__name__)

DEFAULT_TASK = "segmentation"
EARTH = "earth.png"
RESULT = "result.json"
RUN, BACKBONE = "run", "backbone"


class Demo(Protocol):
    """What a module `demo_TASK` has."""

    RECIPE: str
    """Name of the recipe that comes with the package."""
    DATA: str
    """What the result calls the sample."""
    START: str | None
    """Task from whose demo the backbone is taken, None to begin with random weights."""

    def prepare(self) -> Path:
        """The sample's folder. Raises MissingExtraError."""
        ...

    def train_and_report(self, run: Any) -> Mapping[str, Any]:
        """Train, evaluate on what was held out and write report.html; returns the metrics."""
        ...

    def draw(self, predictor: "Predictor", data: Path) -> "Image.Image":
        """What the network makes of the Earth."""
        ...

    def table(self, metrics: Mapping[str, Any]) -> list[str]:
        """The scores in lines."""
        ...


def demo(
    *,
    task: Literal["segmentation", "detection", "instance-segmentation"] = "segmentation",
    out: Path | None = None,
    max_time: str | None = None,
    json: bool = False,
) -> None:
    """Train on satellite pictures of the Earth, score where the network never trained, and draw what it sees.

    Takes six minutes of training on two processor cores, and eight more for boxes or outlines, which start from the
    first ones' backbone; needs no download. Called again, it goes on where it was stopped, or scores and draws the
    finished run anew.

    Parameters
    ----------
    task
        What is learnt: ocean, land and lakes pixel by pixel (segmentation), or boxes (detection) or outlines
        (instance-segmentation) of islands and lakes. The last two begin with the backbone of the first one's finished
        demo in the folder demo/, or else train it first, in backbone/ beside their run.
    out
        Folder for the run (run/), the picture (earth.png) and the scores (result.json); by default demo, for the other
        tasks demo-TASK.
    max_time
        Training time instead of the recipe's, such as 2m; of the backbone as well, where it is trained.
    json
        Print one JSON object instead of the table.
    """
    module = cast("Demo", task_module("demo", task))
    out = out or _default_folder(task)
    data = module.prepare()
    config = _config(module, task, data, out, max_time)
    if module.START is not None and not config.resume:
        config = replace(config, init=_backbone(module.START, out, max_time))
    metrics = _train(module, config)
    _draw(module, data, out)
    result = _result(module, task, out, metrics)
    write_json(out / RESULT, result)
    sys.stdout.write(dumps(result) + "\n" if json else _text(module.table(metrics), out))


def _default_folder(task: str) -> Path:
    return Path("demo" if task == DEFAULT_TASK else f"demo-{task}")


def _backbone(task: str, out: Path, max_time: str | None) -> Path:
    """The run to start from: that of the finished demo of `task`, or one trained below `out`, now or earlier."""
    there = _default_folder(task)
    if (there / RESULT).is_file():
        _logger.info("starting from the backbone of the demo in %s", there)
        return there / RUN
    _logger.info("first the backbone: the demo of %s, without its picture", task)
    module = cast("Demo", task_module("demo", task))
    config = _config(module, task, module.prepare(), out, max_time, run=BACKBONE)
    _train(module, config)
    return config.out


def _config(module: Demo, task: str, data: Path, out: Path, max_time: str | None, run: str = RUN) -> RunConfig:
    """The recipe of the sample as `cyclemlp train TASK` reads it, or the run to go on with."""
    from cyclemlp.training.run_folder import CONFIG_NAME, read_run_config

    run_dir = out / run
    options = ["--data", str(data), "--out", str(run_dir)]
    if max_time is not None:
        options += ["--max-time", max_time]
    config = _parsed(task, ["--config", module.RECIPE, *options])
    if not (run_dir / CONFIG_NAME).is_file():
        return config
    head = read_run_config(run_dir).get("head")
    if head != flat(config)["head"]:
        raise ConfigError(f"--out {out} holds the demo of another task (its head is {head}): choose another folder")
    return _parsed(task, ["--resume", *options])


def _parsed(task: str, options: Sequence[str]) -> RunConfig:
    from cyclemlp.cli.train import app as train

    _, bound, _ = train.parse_args([task, *options], exit_on_error=False, print_error=False)
    config = bound.arguments["run"]
    assert isinstance(config, RunConfig)
    return config


def _train(module: Demo, config: RunConfig) -> Mapping[str, Any]:
    from cyclemlp.training.stopping import TrainingStopped

    try:
        return module.train_and_report(config)
    except TrainingStopped as stopped:
        _logger.info("stopped at step %d; the same command goes on from there", stopped.step)
        sys.exit(128 + stopped.signum)


def _draw(module: Demo, data: Path, out: Path) -> None:
    from cyclemlp.files import atomic_write
    from cyclemlp.inference.predictor import Predictor

    _logger.info("drawing the Earth")
    picture = module.draw(Predictor.load(out / RUN), data)
    with atomic_write(out / EARTH) as part:
        picture.save(part)


def _result(module: Demo, task: str, out: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Scores, with what a reader needs to judge or repeat them."""
    import torch

    from cyclemlp.machine import environment
    from cyclemlp.training.run_folder import read_run_config

    training = _length(out / RUN)
    start = read_run_config(out / RUN).get("init")
    if module.START is not None and start is not None:
        training["start"] = {"task": module.START, **_length(Path(start))}
    command = "cyclemlp demo" if task == DEFAULT_TASK else f"cyclemlp demo --task {task}"
    return {
        "task": task,
        "data": module.DATA,
        "split": "val",
        "run": str(out / RUN),
        "earth": str(out / EARTH),
        "metrics": metrics,
        "training": training,
        "environment": environment(command, torch.get_num_threads(), []),
    }


def _length(run: Path) -> dict[str, Any]:
    """Steps and seconds of a finished training."""
    from cyclemlp.training.recorder import read_metrics

    rows = read_metrics(run)
    return {"steps": int(rows[-1]["step"]), "seconds": max(float(row["seconds"] or 0) for row in rows)}


def _text(table: list[str], out: Path) -> str:
    lines = ["", *table, "", f"picture  {out / EARTH}", f"report   {out / RUN / 'report.html'}", ""]
    return "\n".join(lines)
