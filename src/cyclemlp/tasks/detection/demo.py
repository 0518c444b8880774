"""`cyclemlp demo` of detection: islands and lakes, found in the held-out columns of the Earth, next to the labels."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cyclemlp.data.drawing import with_legend
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.objects import DetectionDataset, DetectionSplit, Record
from cyclemlp.data.samples.blue_marble import BAND
from cyclemlp.data.samples.blue_marble_instances import EDGE, corner_of, prepare_blue_marble_instances
from cyclemlp.heads.detection_options import SHOWN_SCORE
from cyclemlp.tasks.base import Predict
from cyclemlp.tasks.detection.predict import DetectionResult, labelled
from cyclemlp.tasks.sample_demo import SampleDemo

_logger = logging.getLogger(__name__)

ZOOM = 2
"""Pixels of the drawing for one of the Earth."""
ROWS = (270, 1620)
"""First row and end of what is drawn, from 72 degrees north to 18 south; there are few islands beyond."""
COLOURS = ((255, 176, 32), (96, 224, 255))
"""Of islands and lakes."""
MASK_OPACITY = 0.6
_PANEL, _TEXT, _GRID = (12, 28, 48), (255, 255, 255), (120, 140, 160)
_LINE = 3
_MARGIN, _GAP, _TITLE = 40, 12, 64


@dataclass
class IslandsDemo(SampleDemo):
    """Boxes around islands and lakes; `recipe` decides whether their outlines are predicted as well."""

    recipe: str = "sample-detection"
    per_class: str = "AP"
    over_classes: tuple[str, ...] = ("mAP", "AP50")
    data_name = "blue-marble-instances"
    starts_from = "segmentation"

    def prepare(self) -> Path:
        _logger.info("preparing the sample: NASA's Blue Marble with its islands and lakes as objects")
        return prepare_blue_marble_instances()

    def draw(self, predict: Predict, classes: tuple[str, ...], data: Path) -> Image.Image:
        """The held-out columns from Alaska and from Europe southwards: detections next to the labels."""
        return draw_held_out(predict, classes, find_dataset(data, DetectionDataset).splits["val"])


class _Tile(NamedTuple):
    left: int
    top: int
    result: DetectionResult


def draw_held_out(predict: Predict, classes: tuple[str, ...], split: DetectionSplit) -> Image.Image:
    """For each band of columns in `split` two strips: what was found, and the labels; a legend below."""
    found, wanted = [], []
    for path, record in _shown(split):
        found_here = predict(path)
        assert isinstance(found_here, DetectionResult)
        result = found_here.above(SHOWN_SCORE)
        found.append(_Tile(*corner_of(path), result))
        labels = labelled(record, result.classes, result.image)
        wanted.append(_Tile(*corner_of(path), labels if result.has_masks else replace(labels, given_masks=None)))
    strips = []
    for band in sorted({tile.left // BAND for tile in found}):
        for tiles, title in ((found, "found"), (wanted, "labels")):
            strips.append(_strip([tile for tile in tiles if tile.left // BAND == band], title, band * BAND))
    return _arranged(strips, classes)


def _shown(split: DetectionSplit) -> Iterator[tuple[Path, Record]]:
    pairs = zip(split.images, split.records, strict=True)
    return ((path, record) for path, record in pairs if ROWS[0] <= corner_of(path)[1] < ROWS[1])


def painted(result: DetectionResult) -> Image.Image:
    """An upscaled image, with a box of its class's colour around every object, and its pixels where there are masks."""
    height, width = result.image.shape[:2]
    size = width * ZOOM, height * ZOOM
    pixels = np.array(Image.fromarray(result.image).resize(size, Image.Resampling.BICUBIC))
    colours = [COLOURS[int(label)] for label in result.labels]
    if result.has_masks:
        for i, colour in enumerate(colours):
            mask = result.mask(i).repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
            pixels[mask] = (1 - MASK_OPACITY) * pixels[mask] + MASK_OPACITY * np.array(colour)
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    for box, colour in zip(result.boxes, colours, strict=True):
        left, top, right, bottom = (float(value) * ZOOM for value in box)
        pen.rectangle((left - _LINE, top - _LINE, right + _LINE - 1, bottom + _LINE - 1), outline=colour, width=_LINE)
    return image


def _strip(tiles: list[_Tile], title: str, first_column: int) -> Image.Image:
    """The tiles of a band in their places, below a title with the number of objects in them."""
    head = 2 * _TITLE
    strip = Image.new("RGB", (BAND * ZOOM, (ROWS[1] - ROWS[0]) * ZOOM + head), _PANEL)
    pen = ImageDraw.Draw(strip)
    for tile in tiles:
        x, y = (tile.left - first_column) * ZOOM, (tile.top - ROWS[0]) * ZOOM + head
        strip.paste(painted(tile.result), (x, y))
        pen.rectangle((x, y, x + EDGE * ZOOM, y + EDGE * ZOOM), outline=_GRID)
    text = f"{title}: {sum(len(tile.result) for tile in tiles)}"
    pen.text((0, head / 2), text, fill=_TEXT, font=ImageFont.load_default(_TITLE), anchor="lm")
    return strip


def _arranged(strips: list[Image.Image], classes: tuple[str, ...]) -> Image.Image:
    """Strips side by side, those of a band close together, and the legend."""
    width, height = strips[0].size
    places = [_MARGIN + i * (width + _GAP) + i // 2 * 3 * _GAP for i in range(len(strips))]
    canvas = Image.new("RGB", (places[-1] + width + _MARGIN, height + _MARGIN), _PANEL)
    for strip, x in zip(strips, places, strict=True):
        canvas.paste(strip, (x, 0))
    note = f"columns never trained on; found: score {SHOWN_SCORE} or more; tiny and cut objects are not labelled"
    return with_legend(canvas, [*zip(COLOURS, classes, strict=True), (None, note)], _TITLE)
