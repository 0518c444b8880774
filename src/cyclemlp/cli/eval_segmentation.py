"""`cyclemlp eval` of segmentation models."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cyclemlp.cli.eval import EvaluationOptions, listed, score_lines, seen_as
from cyclemlp.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from cyclemlp.data.masks import MaskDataset
    from cyclemlp.inference.predictor import Predictor

OPTIONS = ("scales", "flip", "window", "overlap")
CLASSES_NAME = "classes.txt"


def evaluate(predictor: "Predictor", options: EvaluationOptions) -> dict[str, Any]:
    """Scores over all pixels of the split. Raises DataError."""
    from cyclemlp.data.formats.registry import find_dataset
    from cyclemlp.data.masks import MaskDataset
    from cyclemlp.inference.evaluate import evaluate_segmentation

    data, split = options.data, options.split
    dataset = find_dataset(data, MaskDataset)
    if split not in dataset.splits:
        raise DataError(
            f"{data} has no split {split!r}; it has {', '.join(dataset.splits)}." + did_you_mean(split, dataset.splits)
        )
    _check_classes(dataset, predictor.card.classes)
    pairs = dataset.splits[split]
    predictor = predictor.with_views(options.scales or (1.0,), flip=options.flip)
    predictor = predictor.with_windows(options.window, options.overlap)
    seen = {} if predictor.views.plain else predictor.views.to_dict()
    return {"images": len(pairs.images), **seen, "metrics": evaluate_segmentation(predictor, pairs)}


def table(report: Mapping[str, Any]) -> list[str]:
    """IoU of each class, their mean, and pixel accuracy; first how images were seen, if not as they are."""
    metrics = report["metrics"]
    rows = [*metrics["IoU"].items(), ("mean", metrics["mIoU"]), ("pixel accuracy", metrics["pixel_accuracy"])]
    return [*seen_as(report), *score_lines(rows, "IoU")]


def _check_classes(dataset: "MaskDataset", classes: tuple[str, ...]) -> None:
    """The data's classes must be the model's; without names only their number can be compared."""
    if dataset.classes == classes or (not dataset.named and len(dataset.classes) <= len(classes)):
        return
    raise DataError(
        f"{dataset.root} has {listed(dataset.classes)}, but the model was trained on {listed(classes)}:"
        f" choose other --data, or correct its {CLASSES_NAME}"
    )
