"""`cyclemlp train`: from a folder of labelled images to a network of your own."""

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import cyclopts
from cyclopts import App, Parameter

from cyclemlp.cli.model_families import full_name
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.classification.config import ClassificationConfig
from cyclemlp.tasks.detection.config import DetectionConfig
from cyclemlp.tasks.instance_segmentation.config import InstanceSegmentationConfig
from cyclemlp.tasks.options import RunConfig
from cyclemlp.tasks.scores import metric_columns
from cyclemlp.tasks.segmentation.config import SegmentationConfig
from cyclemlp.training.recipes import read_recipe
from cyclemlp.training.run_folder import read_run_config

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from cyclemlp.data.masks import MaskSplit
    from cyclemlp.inference.predictor import Predictor
    from cyclemlp.tasks.segmentation.metrics import SegmentationMetrics

_logger = logging.getLogger(__name__)

REPORT_PICTURES = 4
CONFIGS: dict[str, type[RunConfig]] = {
    "segmentation": SegmentationConfig,
    "classification": ClassificationConfig,
    "detection": DetectionConfig,
    "instance-segmentation": InstanceSegmentationConfig,
}

RunT = TypeVar("RunT", bound=RunConfig)


def _fill_in(app: App, commands: tuple[str, ...], arguments: cyclopts.ArgumentCollection) -> None:
    """Give options left out on the command line the values of the recipe, or of the run to be resumed."""
    given = {argument.name: argument.tokens[-1].value for argument in arguments if argument.tokens}
    names = {argument.name.removeprefix("--") for argument in arguments} - {"config", "json"}
    if "--resume" in given:
        if "--config" in given:
            raise ConfigError("--config and --resume were both given: a run keeps its own options, leave --config out")
        options = read_run_config(Path(given.get("--out", CONFIGS[commands[-1]].out)))
        source = "the run to resume"
    elif "--config" in given:
        options, source = read_recipe(given["--config"], names, commands[-1]), given["--config"]
    else:
        return
    values = {name: value for name, value in options.items() if value is not None and f"--{name}" not in given}
    # Under the commands' names, since otherwise an option called as a verb, like `data`, is taken for the verb's.
    for command in reversed(commands):
        values = {command: values}
    cyclopts.config.Dict(values, source=source)(app, commands, arguments)


app = App(
    name="train",
    help="Train a network on your own data.",
    help_format="plaintext",
    config=_fill_in,
    default_parameter=Parameter(negative=()),
)


@app.command
def segmentation(
    *,
    run: Annotated[SegmentationConfig, Parameter(name="*")],
    config: str | None = None,  # noqa: ARG001  (read by _fill_in)
    json: bool = False,
) -> None:
    """Train a network that gives every pixel a class.

    The run folder gets the network (model.safetensors, model.json), checkpoints, metrics.csv, TensorBoard events
    and report.html. Only --data is needed; options on the command line go before those of a recipe.

    Parameters
    ----------
    run
        What is trained, and how.
    config
        Recipe: a YAML file of options, or the name of one that comes with cyclemlp.
    json
        Print one JSON object with the run folder and its metrics on standard output.
    """
    _train("segmentation", run, train_and_report, json)


@app.command
def classification(
    *,
    run: Annotated[ClassificationConfig, Parameter(name="*")],
    config: str | None = None,  # noqa: ARG001  (read by _fill_in)
    json: bool = False,
) -> None:
    """Train a network that gives every image a class.

    The run folder gets the network (model.safetensors, model.json), checkpoints, metrics.csv, confusion.csv,
    TensorBoard events and report.html. Only --data is needed; options on the command line go before those of a recipe.

    Parameters
    ----------
    run
        What is trained, and how.
    config
        Recipe: a YAML file of options, or the name of one that comes with cyclemlp.
    json
        Print one JSON object with the run folder and its metrics on standard output.
    """
    from cyclemlp.cli.train_classification import train_and_report

    _train("classification", run, train_and_report, json)


@app.command
def detection(
    *,
    run: Annotated[DetectionConfig, Parameter(name="*")],
    config: str | None = None,  # noqa: ARG001  (read by _fill_in)
    json: bool = False,
) -> None:
    """Train a network that finds objects and puts a box around each.

    The run folder gets the network (model.safetensors, model.json), checkpoints, metrics.csv, TensorBoard events
    and report.html. Only --data is needed; options on the command line go before those of a recipe.

    Parameters
    ----------
    run
        What is trained, and how.
    config
        Recipe: a YAML file of options, or the name of one that comes with cyclemlp.
    json
        Print one JSON object with the run folder and its metrics on standard output.
    """
    from cyclemlp.cli.train_detection import train_and_report

    _train("detection", run, train_and_report, json)


@app.command
def instance_segmentation(
    *,
    run: Annotated[InstanceSegmentationConfig, Parameter(name="*")],
    config: str | None = None,  # noqa: ARG001  (read by _fill_in)
    json: bool = False,
) -> None:
    """Train a network that finds objects and gives each its pixels.

    The run folder gets the network (model.safetensors, model.json), checkpoints, metrics.csv, TensorBoard events
    and report.html. Only --data is needed; options on the command line go before those of a recipe.

    Parameters
    ----------
    run
        What is trained, and how.
    config
        Recipe: a YAML file of options, or the name of one that comes with cyclemlp.
    json
        Print one JSON object with the run folder and its metrics on standard output.
    """
    from cyclemlp.cli.train_detection import train_and_report

    _train("instance-segmentation", run, train_and_report, json)


def _train(task: str, run: RunT, train_and_report: Callable[[RunT], Mapping[str, Any]], json: bool) -> None:
    from cyclemlp.training.stopping import TrainingHelped, TrainingStopped

    try:
        metrics = train_and_report(replace(run, model=full_name(run.model)))
    except TrainingStopped as stopped:
        _logger.info("stopped at step %d; to continue:", stopped.step)
        _logger.info("cyclemlp train %s --resume --out %s", task, stopped.run_dir)
        sys.exit(128 + stopped.signum)
    except TrainingHelped:
        return
    _logger.info("%s", _summary(task, metrics))
    _logger.info("the model and report.html are in %s", run.out)
    if json:
        result = {"task": task, "run": str(run.out), "data": str(run.data), "metrics": metrics}
        sys.stdout.write(dumps(result) + "\n")


def _summary(task: str, metrics: Mapping[str, Any]) -> str:
    scores = {name.rpartition("/")[2].replace("_", " "): v for name, v in metric_columns(task, metrics).items()}
    return ", ".join(
        f"{name} {'absent' if v is None else f'{v:.4f}'}"
        for name, v in scores.items()
        if name != "top5" or v is not None
    )


def train_and_report(run: SegmentationConfig) -> "SegmentationMetrics":
    """Train, evaluate on all validation images and write report.html; returns the metrics.

    Raises as `train_segmentation` does.
    """
    from cyclemlp.data.formats.registry import find_dataset
    from cyclemlp.data.masks import MaskDataset
    from cyclemlp.inference.evaluate import evaluate_segmentation
    from cyclemlp.inference.predictor import Predictor
    from cyclemlp.tasks.segmentation.train import train_segmentation
    from cyclemlp.training.report import write_report

    def evaluate(run_dir: Path) -> "SegmentationMetrics":
        return evaluate_segmentation(Predictor.load(run_dir, run.machine.device), split)

    split = find_dataset(run.data, MaskDataset).splits["val"]
    run_dir = train_segmentation(run, predict=_windowed(run), evaluate=evaluate)
    predictor = Predictor.load(run_dir, run.machine.device)
    write_report(run_dir, _pictures(predictor, split))
    return cast("SegmentationMetrics", predictor.card.metrics)


def _windowed(run: SegmentationConfig) -> Callable[["nn.Module", "Tensor"], "Tensor"]:
    """Logits as the predictor makes them: in windows where the run asks for them or the image is large."""
    from cyclemlp.data.resizing import size_factor
    from cyclemlp.inference.predictor import LARGE_IMAGE_WINDOW, MAX_WHOLE_PIXELS
    from cyclemlp.inference.tiling import predict_logits

    def logits(model: "nn.Module", image: "Tensor") -> "Tensor":
        window, (height, width) = run.window, image.shape[-2:]
        scale = run.input_scale * size_factor(height, width, run.short_side, run.long_side)
        if window is None and height * width * scale**2 > MAX_WHOLE_PIXELS:
            window = LARGE_IMAGE_WINDOW
        return predict_logits(model, image, window, input_scale=scale)

    return logits


def _pictures(predictor: "Predictor", split: "MaskSplit") -> list[tuple[str, "Image.Image"]]:
    """A few validation images, spread over the split: prediction on the left, labels on the right."""
    import numpy as np
    from PIL import Image

    from cyclemlp.data.masks import IGNORE_INDEX
    from cyclemlp.data.sampling import evenly_spaced
    from cyclemlp.tasks.segmentation.result import SegmentationResult

    pictures = []
    for index in evenly_spaced(range(len(split.images)), REPORT_PICTURES):
        found = predictor.predict(split.images[index])
        wanted = split.target(index)
        counted = wanted != IGNORE_INDEX
        labels = SegmentationResult(np.where(counted, wanted, 0), found.classes, found.image)
        right = np.where(counted[..., None], np.asarray(labels.draw(legend=False)), found.image)
        both = np.concatenate([np.asarray(found.draw(legend=False)), right], axis=1)
        title = f"{split.images[index].name}: prediction left, labels right"
        pictures.append((title, Image.fromarray(both)))
    return pictures
