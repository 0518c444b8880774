"""`cyclemlp demo` of segmentation: ocean, land and lakes, pixel by pixel, drawn over the whole Earth."""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cyclemlp.data.drawing import with_legend
from cyclemlp.data.lettering import Lettering
from cyclemlp.data.samples.blue_marble import BAND, is_held_out, prepare_blue_marble, read_earth
from cyclemlp.tasks.base import Predict
from cyclemlp.tasks.sample_demo import SampleDemo
from cyclemlp.tasks.segmentation.predict import SegmentationResult

_logger = logging.getLogger(__name__)

TINTS = ((10, 60, 130), (90, 160, 70), (255, 150, 20))
"""Colours of ocean, land and lakes over the photograph."""
OPACITIES = (0.45, 0.30, 0.95)
COAST = (245, 240, 220)
_MARK = (255, 255, 255)
_TEXT_SIZE = 64


class EarthDemo(SampleDemo):
    """Ocean, land and lakes."""

    recipe = "sample-segmentation"
    per_class, over_classes = "IoU", ("mIoU",)
    data_name = "blue-marble"
    held_out = "held-out columns of the Earth, all rows"
    picture = "earth.png"
    by_default = True

    def prepare(self) -> Path:
        _logger.info("preparing the sample: NASA's Blue Marble with a mask of ocean, land and lakes")
        return prepare_blue_marble()

    def draw(self, predict: Predict, classes: tuple[str, ...], data: Path) -> Image.Image:
        """The whole Earth with the predicted classes."""
        earth = read_earth()
        result = predict(earth)
        assert isinstance(result, SegmentationResult)
        return draw_earth(result.mask, classes, earth)


def draw_earth(mask: npt.NDArray[np.uint8], classes: tuple[str, ...], earth: npt.NDArray[np.uint8]) -> Image.Image:
    """The photograph (H, W, 3) with predicted lakes and coasts drawn in, the held-out bands marked, and a legend."""
    tints = np.array(TINTS, dtype=np.float32)[mask]
    opacity = np.array(OPACITIES, dtype=np.float32)[mask][..., None]
    painted = earth * (1 - opacity) + tints * opacity
    painted[_coasts(mask)] = COAST
    image = Image.fromarray(painted.round().astype(np.uint8))
    _mark_held_out(image)
    entries = [(colour, f"predicted {name}") for name, colour in zip(classes, TINTS, strict=True)]
    return with_legend(image, entries, _TEXT_SIZE)


def _coasts(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Land pixels with ocean to the right or below, and the other way round: one pixel wide."""
    is_ocean = mask == 0
    coast = np.zeros(mask.shape, dtype=np.bool_)
    coast[:, :-1] |= is_ocean[:, 1:] != is_ocean[:, :-1]
    coast[:-1] |= is_ocean[1:] != is_ocean[:-1]
    return coast & (mask != 2)


def _mark_held_out(image: Image.Image) -> None:
    pen, lettering = ImageDraw.Draw(image), Lettering(_TEXT_SIZE)
    for left in range(0, image.width, BAND):
        if is_held_out(left):
            pen.rectangle((left, 0, left + BAND - 1, image.height - 1), outline=_MARK, width=6)
            lettering.write(pen, (left + BAND // 2, 40 + _TEXT_SIZE / 2), "held out", _MARK, centred=True)
