"""Options of an instance segmentation run: those of detection, with the head that predicts masks."""

from dataclasses import dataclass
from pathlib import Path

from cyclemlp.errors import ConfigError
from cyclemlp.tasks.detection.config import DetectionConfig


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
