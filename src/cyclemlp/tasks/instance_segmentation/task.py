"""Instance segmentation: detection with a mask for every object."""

from cyclemlp.tasks.base import ScoreNames
from cyclemlp.tasks.detection.demo import IslandsDemo
from cyclemlp.tasks.detection.task import AP50_SENTENCE, ObjectTask
from cyclemlp.tasks.instance_segmentation.config import InstanceSegmentationConfig

_RANGES = ("mAP", "AP50", "AP75", "APs", "APm", "APl")


class InstanceSegmentationTask(ObjectTask[InstanceSegmentationConfig]):
    """Boxes and masks."""

    name = "instance-segmentation"
    purpose = "Train a network that finds objects and gives each its pixels."
    config = InstanceSegmentationConfig
    has_masks = True
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
