"""`cyclemlp demo` of detection: islands and lakes, found in the held-out columns of the Earth."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from cyclemlp.files import JsonMapping
from cyclemlp.tasks.base import Predict, SampleDemo, score_lines

if TYPE_CHECKING:
    from PIL import Image

_logger = logging.getLogger(__name__)


class IslandsDemo(SampleDemo):
    """Boxes around islands and lakes; `recipe` decides whether their outlines are predicted as well."""

    data_name = "blue-marble-instances"
    starts_from = "segmentation"

    def __init__(self, recipe: str = "sample-detection") -> None:
        self.recipe = recipe

    def prepare(self) -> Path:
        """The sample's folder. Raises MissingExtraError."""
        from cyclemlp.data.samples.blue_marble_instances import prepare_blue_marble_instances

        _logger.info("preparing the sample: NASA's Blue Marble with its islands and lakes as objects")
        return prepare_blue_marble_instances()

    def table(self, metrics: JsonMapping) -> list[str]:
        """Average precision of each class, over both, and at an overlap of one half; of boxes, and of masks."""
        prefix = "mask_" if "mask_mAP" in metrics else ""
        rows = [*metrics[f"{prefix}AP"].items(), *((name, metrics[name]) for name in (f"{prefix}mAP", f"{prefix}AP50"))]
        if prefix:
            rows += [(name, metrics[name]) for name in ("box_mAP", "box_AP50")]
        return ["held-out columns of the Earth, all rows", *score_lines(rows, f"{prefix}AP")]

    def draw(self, predict: Predict, classes: tuple[str, ...], data: Path) -> "Image.Image":
        """The held-out columns from Alaska and from Europe southwards: detections next to the labels."""
        from cyclemlp.data.formats.registry import find_dataset
        from cyclemlp.data.objects import DetectionDataset
        from cyclemlp.tasks.detection.drawing import draw_held_out

        return draw_held_out(predict, classes, find_dataset(data, DetectionDataset).splits["val"])
