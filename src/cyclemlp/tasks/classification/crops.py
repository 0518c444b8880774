"""Notes on images that are much longer than wide, of which a square crop keeps less than half."""

import logging
from collections.abc import Sequence
from pathlib import Path

from cyclemlp.data.images import image_size
from cyclemlp.data.problems import FileError
from cyclemlp.data.resizing import MIN_SHARE_IN_CROP, share_in_crop
from cyclemlp.data.sampling import evenly_spaced
from cyclemlp.tasks.card import ModelCard

MAX_HEADERS = 5000
"""Images whose sizes are read from their headers; of more, as many that are spread evenly."""

_LOG = logging.getLogger(__name__)


def note_cropped(images: Sequence[Path], card: ModelCard) -> None:
    """Log how many of these images lose more than half of their area to the crop of `card`, if any do."""
    if card.resize != "crop" or not card.image_size or not card.crop_pct:
        return
    looked_at = evenly_spaced(images, MAX_HEADERS)
    lost = [str(path) for path in looked_at if _share(path, card.image_size, card.crop_pct) < MIN_SHARE_IN_CROP]
    note(lost, len(looked_at))


def note(cropped: Sequence[str], total: int) -> None:
    """Log that these of `total` images lose more than half to the crop, if there are any."""
    if cropped:
        lose, such = ("loses", f"({cropped[0]})") if len(cropped) == 1 else ("lose", f"(such as {cropped[0]})")
        _LOG.warning(
            "note: %d of %d images %s %s more than half to the square crop from the middle; train with --resize pad or"
            " squash to use all of each",
            *(len(cropped), total, such, lose),
        )


def _share(path: Path, size: int, crop_pct: float) -> float:
    try:
        height, width = image_size(path)
    except FileError:  # the check of the data names it
        return 1.0
    return share_in_crop(height, width, size, crop_pct)
