"""`cyclemlp eval`: the scores of a trained model on labelled images, whatever its task."""

import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast

from cyclopts import Parameter

from cyclemlp.cli.task_modules import refuse_foreign_options, task_module
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.training.run_folder import CONFIG_NAME, read_run_config

if TYPE_CHECKING:
    from cyclemlp.inference.predictor import Predictor

SCORES_NAME = "scores.json"


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Options of some tasks only."""

    crop: float | None = None
    """Classification: share of the resized image's edge that is seen, in place of the run's (0.875 is the authors')."""
    image_size: int | None = None
    """Classification: edge of the images in pixels, in place of the run's."""
    scales: Annotated[tuple[float, ...] | None, Parameter(consume_multiple=True)] = None
    """Segmentation, detection: look at each image at several factors of its usual size, such as 0.75 1 1.5; masks are averaged, of boxes the likeliest stays; the benchmarks' "multi-scale" of segmentation is 0.5 0.75 1 1.25 1.5 1.75 with --flip."""  # noqa: E501
    flip: bool = False
    """Segmentation, detection: look at each image mirrored left to right as well."""
    window: int | None = None
    """Segmentation, detection: look at each image in windows of this edge, in network pixels; by default only at large images."""  # noqa: E501
    overlap: int | None = None
    """Network pixels that windows share; objects that are larger may be found in pieces."""


_NO_OPTIONS = TaskOptions()


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(TaskOptions):
    """What a task is to do."""

    data: Path
    """Folder in the task's format."""
    split: str
    """Which part of it."""
    out: Path | None = None
    """Folder that exists, for files beside the scores."""


class Evaluation(Protocol):
    """What a module `eval_TASK` has."""

    OPTIONS: Collection[str]
    """Fields of `TaskOptions` that this task takes."""

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
    options: Annotated[TaskOptions, Parameter(name="*")] = _NO_OPTIONS,
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
    options
        Options of some tasks only.
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
    refuse_foreign_options(task, module.OPTIONS, asdict(options))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    wanted = EvaluationOptions(data=data or training_data(run), split=split, out=out, **asdict(options))
    report = {
        "task": task,
        "data": str(wanted.data),
        "split": split,
        **module.evaluate(predictor, wanted),
        "model": predictor.card.model,
        "run": str(run),
    }
    _show(report, module, wanted, json)


def _show(report: Mapping[str, Any], module: Evaluation, options: EvaluationOptions, json: bool) -> None:
    if options.out is not None:
        from cyclemlp.files import write_json

        write_json(options.out / SCORES_NAME, report)
    images = f"{report['images']} image" + "s" * (report["images"] != 1)
    lines = [f"{report['model']} on {images} of {options.data}, split {options.split}", *module.table(report)]
    sys.stdout.write(dumps(report) + "\n" if json else "\n".join(lines) + "\n")


def training_data(run: Path) -> Path:
    """The data folder recorded in the run's config.yaml. Raises DataError where there is none."""
    run_dir = run if run.is_dir() else run.parent
    try:
        data = read_run_config(run_dir).get("data")
    except ConfigError as error:
        raise DataError(f"{error}; name the data folder with --data") from error
    if not isinstance(data, str):
        raise DataError(f"{run_dir / CONFIG_NAME} names no data: name a folder with --data")
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


def seen_as(report: Mapping[str, Any], how: str = "averaged over") -> list[str]:
    """A line on the views that predictions come from, where there were several, and `how`."""
    if "scales" not in report:
        return []
    scales = " ".join(f"{scale:g}" for scale in report["scales"])
    return [f"{how} scales {scales}" + (", each mirrored as well" if report["flip"] else "")]
