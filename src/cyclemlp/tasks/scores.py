"""How the scores of each task are called, wherever they are written, drawn or compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_CLASSES_LISTED = 100
"""With more classes their single scores stay out of tables and curves."""


@dataclass(frozen=True)
class ScoreNames:
    """Keys in a task's metrics; all scores lie in [0, 1], or are None where nothing was counted."""

    main: str
    """The one that says which network is better."""
    per_class: str
    """A dict by class."""
    further: tuple[str, ...]


SCORES = {
    "segmentation": ScoreNames("mIoU", "IoU", ("pixel_accuracy",)),
    "classification": ScoreNames("top1", "accuracy", ("top5",)),
    "detection": ScoreNames("mAP", "AP", ("AP50", "AP75", "APs", "APm", "APl")),
    "instance-segmentation": ScoreNames(
        "mask_mAP",
        "mask_AP",
        (
            *("mask_AP50", "mask_AP75", "mask_APs", "mask_APm", "mask_APl"),
            *("box_mAP", "box_AP50", "box_AP75", "box_APs", "box_APm", "box_APl"),
        ),
    ),
}


def metric_columns(task: str, metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Metrics as columns of metrics.csv: `IoU/water` for the class water."""
    names = SCORES[task]
    single = {name: metrics[name] for name in (names.main, *names.further)}
    per_class = metrics[names.per_class]
    if len(per_class) > MOST_CLASSES_LISTED:
        return single
    return single | {f"{names.per_class}/{name}": value for name, value in per_class.items()}


def no_metrics(task: str, classes: tuple[str, ...]) -> dict[str, Any]:
    """Metrics of nothing, for their names."""
    names = SCORES[task]
    return {**dict.fromkeys((names.main, *names.further)), names.per_class: dict.fromkeys(classes)}
