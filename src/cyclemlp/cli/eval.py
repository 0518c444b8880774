"""`cyclemlp eval`: the scores of a trained model on labelled images."""

import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cyclemlp.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from cyclemlp.data.masks import MaskDataset
    from cyclemlp.tasks.segmentation import SegmentationMetrics

CLASSES_NAME = "classes.txt"


def evaluate(run: Path, /, *, data: Path | None = None, split: str = "val", json: bool = False) -> None:
    """Evaluate a trained model: IoU of each class, their mean, and pixel accuracy, exact over whole images.

    Parameters
    ----------
    run
        Run folder written by `cyclemlp train`, or its model.safetensors.
    data
        Folder with images/ and masks/; by default the one the run was trained on.
    split
        Which part of the data: val or train.
    json
        Print one JSON object instead of a table.
    """
    from cyclemlp.data.masks import find_mask_dataset
    from cyclemlp.inference.evaluate import evaluate_segmentation
    from cyclemlp.inference.predictor import Predictor

    predictor = Predictor.load(run)
    data = data or _training_data(run)
    dataset = find_mask_dataset(data)
    if split not in dataset.splits:
        raise DataError(
            f"{data} has no split {split!r}; it has {', '.join(dataset.splits)}." + did_you_mean(split, dataset.splits)
        )
    _check_classes(dataset, predictor.card.classes)
    pairs = dataset.splits[split]
    report = {
        "task": predictor.card.task,
        "data": str(data),
        "split": split,
        "images": len(pairs.images),
        "metrics": (metrics := evaluate_segmentation(predictor, pairs)),
        "model": predictor.card.model,
        "run": str(run),
    }
    sys.stdout.write(dumps(report) + "\n" if json else _table(report, metrics))


def _training_data(run: Path) -> Path:
    """The data folder recorded in the run's config.yaml."""
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


def _check_classes(dataset: "MaskDataset", classes: tuple[str, ...]) -> None:
    """The data's classes must be the model's; without names only their number can be compared."""
    named = (dataset.root / CLASSES_NAME).is_file()
    if dataset.classes == classes or (not named and len(dataset.classes) <= len(classes)):
        return
    raise DataError(
        f"{dataset.root} has {_listed(dataset.classes)}, but the model was trained on {_listed(classes)}:"
        f" choose other --data, or correct its {CLASSES_NAME}"
    )


def _listed(classes: tuple[str, ...], shown: int = 6) -> str:
    more = ", ..." if len(classes) > shown else ""
    return f"{len(classes)} classes ({', '.join(classes[:shown])}{more})"


def _table(report: dict[str, Any], metrics: "SegmentationMetrics") -> str:
    """The scores as aligned columns under a line that says what was measured."""
    rows = [*metrics["IoU"].items(), ("mean", metrics["mIoU"])]
    width = max(len("pixel accuracy"), *(len(name) for name, _ in rows))
    images = f"{report['images']} image" + "s" * (report["images"] != 1)
    lines = [f"{report['model']} on {images} of {report['data']}, split {report['split']}"]
    lines += [f"{'class':{width}}     IoU"]
    lines += [f"{name:{width}}  {_score(value)}" for name, value in rows]
    lines += [f"{'pixel accuracy':{width}}  {_score(metrics['pixel_accuracy'])}"]
    return "\n".join(lines) + "\n"


def _score(value: float | None) -> str:
    return "absent" if value is None else f"{value:.4f}"
