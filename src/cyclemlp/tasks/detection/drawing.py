"""The image that `cyclemlp demo` makes with detectors: the held-out columns, detections next to labels."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cyclemlp.data.samples.blue_marble import BAND
from cyclemlp.data.samples.blue_marble_instances import EDGE, corner_of
from cyclemlp.tasks.base import Predict
from cyclemlp.tasks.detection.predict import SHOWN_SCORE, DetectionResult, labelled

if TYPE_CHECKING:
    from cyclemlp.data.objects import DetectionSplit, Record

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


class _Tile(NamedTuple):
    left: int
    top: int
    result: DetectionResult


def draw_held_out(predict: Predict, classes: tuple[str, ...], split: "DetectionSplit") -> Image.Image:
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


def _shown(split: "DetectionSplit") -> Iterator[tuple[Path, "Record"]]:
    pairs = zip(split.images, split.records, strict=True)
    return ((path, record) for path, record in pairs if ROWS[0] <= corner_of(path)[1] < ROWS[1])


def painted(result: DetectionResult) -> Image.Image:
    """An upscaled image, with a box of its class's colour around every object, and its pixels where there are masks."""
    pixels = np.asarray(Image.fromarray(result.image).resize(_upscaled(result), Image.Resampling.BICUBIC)).copy()
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


def _upscaled(result: DetectionResult) -> tuple[int, int]:
    height, width = result.image.shape[:2]
    return width * ZOOM, height * ZOOM


def _strip(tiles: Iterable[_Tile], title: str, first_column: int) -> Image.Image:
    """The tiles of a band in their places, below a title with the number of objects in them."""
    tiles = list(tiles)
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
    foot = 3 * _TITLE
    canvas = Image.new("RGB", (places[-1] + width + _MARGIN, height + foot), _PANEL)
    for strip, x in zip(strips, places, strict=True):
        canvas.paste(strip, (x, 0))
    _legend(ImageDraw.Draw(canvas), classes, _MARGIN, height + foot // 2)
    return canvas


def _legend(pen: ImageDraw.ImageDraw, classes: tuple[str, ...], x: int, y: int) -> None:
    font, half = ImageFont.load_default(_TITLE), _TITLE // 2
    for name, colour in zip(classes, COLOURS, strict=True):
        pen.rectangle((x, y - half, x + _TITLE, y + half), outline=colour, width=3 * _LINE)
        pen.text((x + _TITLE + half, y), name, fill=_TEXT, font=font, anchor="lm")
        x += 3 * _TITLE + int(font.getlength(name))
    note = f"columns never trained on; found: score {SHOWN_SCORE} or more; tiny and cut objects are not labelled"
    pen.text((x, y), note, fill=_GRID, font=font, anchor="lm")
