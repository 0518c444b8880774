"""`cyclemlp demo` of detection: handwritten digits on images of the Earth, found in images that were held out."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.lettering import Lettering
from cyclemlp.data.objects import DetectionDataset
from cyclemlp.data.samples.digits import EDGE, prepare_digits
from cyclemlp.heads.detection_options import SHOWN_SCORE
from cyclemlp.tasks.base import Predict
from cyclemlp.tasks.detection.predict import DetectionResult
from cyclemlp.tasks.sample_demo import SampleDemo

_logger = logging.getLogger(__name__)

COLUMNS, ROWS = 4, 2
"""Images that are drawn."""
ZOOM = 2
"""Pixels of the drawing for one of an image."""
_TITLE = 40
_PANEL, _TEXT = (12, 28, 48), (255, 255, 255)


@dataclass
class DigitsDemo(SampleDemo):
    """Boxes around digits; `recipe` decides whether their outlines are predicted as well."""

    recipe: str = "sample-detection"
    per_class: str = "AP"
    over_classes: tuple[str, ...] = ("mAP", "AP50")
    data_name = "digits"
    held_out = "digits and places of the Earth that were held out"
    picture = "digits.png"

    def prepare(self) -> Path:
        _logger.info("preparing the sample: handwritten digits on NASA's Blue Marble")
        return prepare_digits()

    def draw(self, predict: Predict, classes: tuple[str, ...], data: Path) -> Image.Image:
        """What is found in the first held-out images."""
        split = find_dataset(data, DetectionDataset).splits["val"]
        found = []
        for path in split.images[: COLUMNS * ROWS]:
            result = predict(path)
            assert isinstance(result, DetectionResult)
            found.append(result.above(SHOWN_SCORE))
        return arranged([enlarged(result).draw() for result in found])


def enlarged(result: DetectionResult) -> DetectionResult:
    """The same objects in an image of ZOOM times the size, so that names cover little of them."""
    size = result.image.shape[1] * ZOOM, result.image.shape[0] * ZOOM
    image = np.asarray(Image.fromarray(result.image).resize(size, Image.Resampling.BICUBIC))
    boxes = result.boxes * np.float32(ZOOM)
    return replace(result, image=image, detections=replace(result.detections, boxes_xyxy=boxes))


def arranged(images: Sequence[Image.Image]) -> Image.Image:
    """Images in rows, below a line that says what they are."""
    edge = EDGE * ZOOM
    canvas = Image.new("RGB", (COLUMNS * edge, -(-len(images) // COLUMNS) * edge + 2 * _TITLE), _PANEL)
    for i, image in enumerate(images):
        canvas.paste(image, (i % COLUMNS * edge, i // COLUMNS * edge + 2 * _TITLE))
    text = f"digits and places that were held out; score {SHOWN_SCORE} or more"
    Lettering(_TITLE).write(ImageDraw.Draw(canvas), (_TITLE, _TITLE), text, _TEXT)
    return canvas
