"""Instance segmentation: detection with a mask for every object."""

from dataclasses import dataclass
from pathlib import Path

from cyclemlp.errors import ConfigError
from cyclemlp.tasks.base import ScoreNames
from cyclemlp.tasks.detection.config import DetectionConfig
from cyclemlp.tasks.detection.demo import IslandsDemo
from cyclemlp.tasks.detection.task import AP50_SENTENCE, ObjectTask

_RANGES = ("mAP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True, kw_only=True)
class InstanceSegmentationConfig(DetectionConfig):
    """A whole instance segmentation run; only `data` has to be given."""

    data: Path
    """Folder with an outline of each object in COCO's format (train.json, val.json, train/, val/, or as its archives are) or YOLO's."""  # noqa: E501
    out: Path = Path("runs/instance-segmentation")
    """Run folder; new or empty, unless --resume is given."""
    head: str = "mask-rcnn"
    """Head: mask-rcnn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head != "mask-rcnn":
            raise ConfigError(f"--head {self.head} gives no masks: instance-segmentation needs mask-rcnn")


class InstanceSegmentationTask(ObjectTask[InstanceSegmentationConfig]):
    """Boxes and masks."""

    name = "instance-segmentation"
    purpose = "Train a network that finds objects and gives each its pixels."
    config = InstanceSegmentationConfig
    has_masks = True
    prediction_options = ObjectTask.prediction_options | {"objects"}
    scores = ScoreNames(
        "mask_mAP",
        "mask_AP",
        (*(f"mask_{name}" for name in _RANGES[1:]), *(f"box_{name}" for name in _RANGES)),
        {
            "mask_AP50": AP50_SENTENCE.format(what="mask"),
            "box_mAP": "Average precision of the boxes is {:.2f} %, over overlaps from 0.5 to 0.95.",
        },
    )
    demo = IslandsDemo("sample-instance-segmentation", "mask_AP", ("mask_mAP", "mask_AP50", "box_mAP", "box_AP50"))
