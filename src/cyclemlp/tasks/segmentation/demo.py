"""`cyclemlp demo` of segmentation: ocean, land and lakes, pixel by pixel, drawn over the whole Earth."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from cyclemlp.files import JsonMapping
from cyclemlp.tasks.base import Predict, SampleDemo

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image, ImageDraw

_logger = logging.getLogger(__name__)

TINTS = ((10, 60, 130), (90, 160, 70), (255, 150, 20))
"""Colours of ocean, land and lakes over the photograph."""
OPACITIES = (0.45, 0.30, 0.95)
COAST = (245, 240, 220)
_MARK = (255, 255, 255)
_PANEL = (12, 28, 48)
LEGEND_LEFT = 640
"""Where the legend begins, in pixels: right of the first held-out band."""


class EarthDemo(SampleDemo):
    """Ocean, land and lakes."""

    recipe = "sample-segmentation"
    data_name = "blue-marble"

    def prepare(self) -> Path:
        """The sample's folder. Raises MissingExtraError."""
        from cyclemlp.data.samples.blue_marble import prepare_blue_marble

        _logger.info("preparing the sample: NASA's Blue Marble with a mask of ocean, land and lakes")
        return prepare_blue_marble()

    def table(self, metrics: JsonMapping) -> list[str]:
        """IoU of each class and their mean."""
        rows = [*metrics["IoU"].items(), ("mean", metrics["mIoU"])]
        scores = [f"{name:7}  {'absent' if value is None else f'{value:.4f}'}" for name, value in rows]
        return ["held-out columns of the Earth, all rows", "class    IoU", *scores]

    def draw(self, predict: Predict, classes: tuple[str, ...], data: Path) -> "Image.Image":  # noqa: ARG002
        """The whole Earth with the predicted classes."""
        from cyclemlp.data.samples.blue_marble import read_earth
        from cyclemlp.tasks.segmentation.predict import SegmentationResult

        earth = read_earth()
        result = predict(earth)
        assert isinstance(result, SegmentationResult)
        return draw_earth(result.mask, classes, earth)


def draw_earth(
    mask: "npt.NDArray[np.uint8]", classes: tuple[str, ...], earth: "npt.NDArray[np.uint8]"
) -> "Image.Image":
    """The photograph (H, W, 3) with predicted lakes and coasts drawn in and the held-out bands marked."""
    import numpy as np
    from PIL import Image, ImageDraw

    tints = np.array(TINTS, dtype=np.float32)[mask]
    opacity = np.array(OPACITIES, dtype=np.float32)[mask][..., None]
    painted = earth * (1 - opacity) + tints * opacity
    painted[_coasts(mask)] = COAST
    image = Image.fromarray(painted.round().astype(np.uint8))
    pen = ImageDraw.Draw(image)
    _mark_held_out(pen, image.size)
    _legend(pen, classes, image.size)
    return image


def _coasts(mask: "npt.NDArray[np.uint8]") -> "npt.NDArray[np.bool_]":
    """Land pixels with ocean to the right or below, and the other way round: one pixel wide."""
    import numpy as np

    is_ocean = mask == 0
    coast = np.zeros(mask.shape, dtype=np.bool_)
    coast[:, :-1] |= is_ocean[:, 1:] != is_ocean[:, :-1]
    coast[:-1] |= is_ocean[1:] != is_ocean[:-1]
    shown: npt.NDArray[np.bool_] = coast & (mask != 2)
    return shown


def _mark_held_out(pen: "ImageDraw.ImageDraw", size: tuple[int, int]) -> None:
    from PIL import ImageFont

    from cyclemlp.data.samples.blue_marble import BAND, is_held_out

    width, height = size
    font = ImageFont.load_default(64)
    for left in range(0, width, BAND):
        if is_held_out(left):
            pen.rectangle((left, 0, left + BAND - 1, height - 1), outline=_MARK, width=6)
            pen.text((left + BAND // 2, 40), "held out", fill=_MARK, font=font, anchor="mt")


def _legend(pen: "ImageDraw.ImageDraw", classes: tuple[str, ...], size: tuple[int, int]) -> None:
    from PIL import ImageFont

    edge, x = 64, LEGEND_LEFT
    font = ImageFont.load_default(edge)
    width = sum(int(font.getlength(f"predicted {name}")) + 3 * edge + 24 for name in classes)
    pen.rectangle((x - edge, size[1] - 3 * edge, x + width - edge, size[1] - edge // 2), fill=_PANEL)
    for name, colour in zip(classes, TINTS, strict=True):
        top = size[1] - 2 * edge
        pen.rectangle((x, top, x + edge, top + edge), fill=colour, outline=_MARK, width=3)
        pen.text((x + edge + 24, top + edge // 2), f"predicted {name}", fill=_MARK, font=font, anchor="lm")
        x += edge + 24 + int(font.getlength(f"predicted {name}")) + 2 * edge
