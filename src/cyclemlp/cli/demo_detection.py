"""`cyclemlp demo` of detection: islands and lakes, found in the columns of the Earth that were held out."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclemlp.cli.train_detection import train_and_report

if TYPE_CHECKING:
    from PIL import Image

    from cyclemlp.inference.predictor import Predictor

__all__ = ["DATA", "RECIPE", "START", "draw", "prepare", "table", "train_and_report"]

_logger = logging.getLogger(__name__)

RECIPE = "sample-detection"
DATA = "blue-marble-instances"
START = "segmentation"


def prepare() -> Path:
    """The sample's folder. Raises MissingExtraError."""
    from cyclemlp.data.samples.blue_marble_instances import prepare_blue_marble_instances

    _logger.info("preparing the sample: NASA's Blue Marble with its islands and lakes as objects")
    return prepare_blue_marble_instances()


def table(metrics: Mapping[str, Any]) -> list[str]:
    """Average precision of each class, over both, and at an overlap of one half; of boxes, and of masks if there."""
    from cyclemlp.cli.eval import score_lines

    prefix = "mask_" if "mask_mAP" in metrics else ""
    rows = [*metrics[f"{prefix}AP"].items(), *((name, metrics[name]) for name in (f"{prefix}mAP", f"{prefix}AP50"))]
    if prefix:
        rows += [(name, metrics[name]) for name in ("box_mAP", "box_AP50")]
    return ["held-out columns of the Earth, all rows", *score_lines(rows, f"{prefix}AP")]


def draw(predictor: "Predictor", data: Path) -> "Image.Image":
    """The held-out columns from Alaska and from Europe southwards: what was found beside what is there."""
    from cyclemlp.cli.demo_objects import draw_held_out
    from cyclemlp.data.formats.registry import find_dataset
    from cyclemlp.data.objects import DetectionDataset

    return draw_held_out(predictor, find_dataset(data, DetectionDataset).splits["val"])
