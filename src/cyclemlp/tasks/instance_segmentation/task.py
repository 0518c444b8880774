"""Instance segmentation: detection with a mask for every object."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cyclemlp.data.objects import DetectionDataset, DetectionSplit
from cyclemlp.data.sampling import evenly_spaced
from cyclemlp.errors import ConfigError
from cyclemlp.files import JsonMapping
from cyclemlp.option_checks import at_least_zero
from cyclemlp.tasks.base import DEVELOPMENT, ScoreNames
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.detection.config import DetectionConfig
from cyclemlp.tasks.detection.demo import DigitsDemo
from cyclemlp.tasks.detection.scenes import ObjectScenes
from cyclemlp.tasks.detection.task import AP50_SENTENCE, ObjectTask
from cyclemlp.tasks.score_text import ScoreTable

if TYPE_CHECKING:
    from cyclemlp.tasks.detection.metrics import DetectionCounts

_logger = logging.getLogger(__name__)
MAX_DEVELOPMENT, MIN_TO_DIVIDE = 20, 100
"""Most images that are kept out by default, and the fewest training images of which some are."""
_RANGES = ("mAP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True, kw_only=True)
class InstanceSegmentationConfig(DetectionConfig):
    """A whole instance segmentation run; only `data` has to be given."""

    data: Path
    """Folder with an outline of each object in COCO's format (train.json, val.json, train/, val/, or as its archives are) or YOLO's."""  # noqa: E501
    head: str = "mask-rcnn"
    """Head: mask-rcnn."""

    development_images: int | None = None
    """Training images that are kept out of training, evenly spaced; the score threshold of predictions is chosen on them. By default one in twenty, at most 20, and none of fewer than 100 images: the threshold is then 0.3."""  # noqa: E501

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_zero(self, "development_images")
        if self.head != "mask-rcnn":
            raise ConfigError(f"--head {self.head} gives no masks: instance-segmentation needs mask-rcnn")


class InstanceSegmentationTask(ObjectTask[InstanceSegmentationConfig]):
    """Boxes and masks."""

    name = "instance-segmentation"
    purpose = "Train a network that finds objects and gives each its pixels."
    config = InstanceSegmentationConfig
    has_masks = True
    scenes = ObjectScenes(masks=True)
    prediction_options = ObjectTask.prediction_options | {"objects", "simplify"}
    scores = ScoreNames(
        "mask_mAP",
        "mask_AP",
        (*(f"mask_{name}" for name in _RANGES[1:]), *(f"box_{name}" for name in _RANGES)),
        {
            "mask_AP50": AP50_SENTENCE.format(what="mask"),
            "box_mAP": "Average precision of the boxes is {:.2f} %, over overlaps from 0.5 to 0.95.",
        },
    )
    demo = DigitsDemo("sample-instance-segmentation", "mask_AP", ("mask_mAP", "mask_AP50", "box_mAP", "box_AP50"))

    def with_development(self, config: InstanceSegmentationConfig, dataset: DetectionDataset) -> DetectionDataset:
        train = dataset.splits["train"]
        count = len(train.images)
        wanted = _development_images(count) if config.development_images is None else config.development_images
        if not wanted:
            return dataset
        if wanted >= count:
            raise ConfigError(f"--development-images {wanted}: {config.data} has {count} training images; give fewer")
        kept_out = set(evenly_spaced(range(count), wanted))
        parts = {DEVELOPMENT: kept_out, "train": set(range(count)) - kept_out}
        return replace(
            dataset, splits={**dataset.splits, **{name: _part(train, sorted(i)) for name, i in parts.items()}}
        )

    def card_after_development(self, card: ModelCard, counts: "DetectionCounts") -> ModelCard:
        from cyclemlp.tasks.detection.object_scores import best_threshold

        chosen = best_threshold(list(counts.objects.values()))
        if chosen is None:
            _logger.warning("nothing is found on the images kept out of training: the score threshold stays 0.3")
            return card
        _logger.info("objects are shown and counted from a score of %.2f", chosen)
        return replace(card, shown_score=chosen)

    def score_tables(self, metrics: JsonMapping) -> list[ScoreTable]:
        if not (found := metrics.get("objects")):  # a network that was scored by an earlier version
            return []
        names = ("IoU", "TP", "FP", "FN", "accuracy", "F1", "PQ")
        rows = [tuple(_shown(row[name]) for name in names) for row in found["by_IoU"]]
        title = (
            f"objects with a score of {found['score_threshold']:g} or more, matched one to one; accuracy is"
            f" TP / (TP + FP + FN); AJI {_shown(found['AJI'])}"
        )
        return [ScoreTable(title, names, rows)]


def _development_images(count: int) -> int:
    return min(MAX_DEVELOPMENT, count // 20) if count >= MIN_TO_DIVIDE else 0


def _part(split: DetectionSplit, images: list[int]) -> DetectionSplit:
    records = tuple(split.records[i] for i in images)
    return replace(split, images=tuple(split.images[i] for i in images), records=records, annotations=None)


def _shown(value: float | None) -> str:
    return "absent" if value is None else str(value) if isinstance(value, int) else f"{value:.4g}"
