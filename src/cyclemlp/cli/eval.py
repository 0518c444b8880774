"""`cyclemlp eval`: the scores of a trained model on labelled images, whatever its task."""

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import yaml

from cyclemlp.cli.task_modules import refuse_foreign_options, task_module
from cyclemlp.errors import ConfigError, DataError

if TYPE_CHECKING:
    from cyclemlp.inference.predictor import Predictor

SCORES_NAME = "scores.json"


@dataclass(frozen=True)
class EvaluationOptions:
    """What the command line says; options of some tasks only are None where they were not given."""

    data: Path
    split: str
    out: Path | None = None
    """Folder that exists, for files beside the scores."""
    crop: float | None = None
    image_size: int | None = None


class Evaluation(Protocol):
    """What a module `eval_TASK` has."""

    OPTIONS: Collection[str]
    """Fields of `EvaluationOptions` that this task takes beside data, split and out."""

    def evaluate(self, predictor: "Predictor", options: EvaluationOptions) -> dict[str, Any]:
        """Score, write what goes to `out`, and return `images` (how many), `metrics` and whatever else is to be told.

        Raises DataError and ConfigError.
        """
        ...

    def table(self, report: Mapping[str, Any]) -> list[str]:
        """Lines below the title."""
        ...


def evaluate(
    run: Path,
    /,
    *,
    data: Path | None = None,
    split: str = "val",
    out: Path | None = None,
    crop: float | None = None,
    image_size: int | None = None,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Evaluate a trained model on labelled images, by the scores of its task.

    Segmentation: IoU of each class, their mean, and pixel accuracy, exact over whole images. Classification: top-1 and
    top-5 accuracy, accuracy of each class, and with --out the confusion matrix and the images that were taken for
    another class.

    Parameters
    ----------
    run
        Run folder written by `cyclemlp train`, its model.safetensors, or an exported file.
    data
        Folder in the format the task is trained on; by default the one the run was trained on.
    split
        Which part of the data: val, train, or another one that is there.
    out
        Folder for scores.json and what else the task has to show; made where it does not exist.
    crop
        Classification: share of the resized image's edge that is seen, in place of the run's (0.875 is the authors').
    image_size
        Classification: edge of the images in pixels, in place of the run's.
    device
        auto, cpu, cuda, cuda:1 or mps.
    json
        Print one JSON object instead of a table.
    """
    from cyclemlp.inference.predictor import Predictor

    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file: give a folder")
    predictor = Predictor.load(run, device)
    task = predictor.card.task
    module = cast("Evaluation", task_module("eval", task))
    refuse_foreign_options(task, module.OPTIONS, {"crop": crop, "image_size": image_size})
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    options = EvaluationOptions(data or training_data(run), split, out, crop, image_size)
    report = {
        "task": task,
        "data": str(options.data),
        "split": split,
        **module.evaluate(predictor, options),
        "model": predictor.card.model,
        "run": str(run),
    }
    _show(report, module, options, json)


def _show(report: Mapping[str, Any], module: Evaluation, options: EvaluationOptions, json: bool) -> None:
    if options.out is not None:
        from cyclemlp.files import write_json

        write_json(options.out / SCORES_NAME, report)
    images = f"{report['images']} image" + "s" * (report["images"] != 1)
    lines = [f"{report['model']} on {images} of {options.data}, split {options.split}", *module.table(report)]
    sys.stdout.write(dumps(report) + "\n" if json else "\n".join(lines) + "\n")


def training_data(run: Path) -> Path:
    """The data folder recorded in the run's config.yaml. Raises DataError where there is none."""
    config = (run if run.is_dir() else run.parent) / "config.yaml"
    if not config.is_file():
        raise DataError(f"{config} does not exist, so the data is unknown: name a folder with --data")
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{config} is not YAML ({reason}): name the data folder with --data") from error
    data = values.get("data") if isinstance(values, dict) else None
    if not isinstance(data, str):
        raise DataError(f"{config} names no data: name a folder with --data")
    return Path(data)


def score_lines(rows: Collection[tuple[str, float | None]], title: str) -> list[str]:
    """Scores as aligned columns under `title`."""
    width = max(len("class"), *(len(name) for name, _ in rows))
    shown = ["absent" if value is None else f"{value:.4f}" for _, value in rows]
    names = (name for name, _ in rows)
    return [
        f"{'class':{width}}  {title:>6}",
        *(f"{name:{width}}  {score:>6}" for name, score in zip(names, shown, strict=True)),
    ]


def listed(classes: Collection[str], shown: int = 6) -> str:
    """`4 classes (a, b, c, d)`, of many the first."""
    more = ", ..." if len(classes) > shown else ""
    return f"{len(classes)} classes ({', '.join(list(classes)[:shown])}{more})"
