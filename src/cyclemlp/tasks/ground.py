"""Images of another ground resolution than a network was trained at: resampled for it, or refused."""

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from cyclemlp.data.ground_resolution import RESOLUTION_TOLERANCE
from cyclemlp.data.image_errors import ImageError
from cyclemlp.documents import finite_number
from cyclemlp.errors import ConfigError

if TYPE_CHECKING:
    from cyclemlp.tasks.card import ModelCard

KEEP = "keep"
MAX_FACTOR = 4.0
"""Images whose pixels are more times larger or smaller than in training are refused: little of them would be left."""
_MAX_GIVEN = 16.0
"""The same, where the resolution is given by hand."""

_LOG = logging.getLogger(__name__)


def card_for_images(card: "ModelCard", given: str | None) -> "ModelCard":
    """The card for images as --ground-resolution describes them: metres per pixel, or `keep`. Raises ConfigError."""
    if given is None:
        return card
    if not card.ground_resolution:
        what = "the model does not know the ground resolution of its training images"
        raise ConfigError(f"--ground-resolution {given}: {what}: leave it out")
    if given == KEEP:
        return dataclasses.replace(card, ground_resolution=())
    metres = _number(given)
    if metres is None or metres <= 0:
        raise ConfigError(f"--ground-resolution {given} is not allowed: metres per pixel, such as 0.5, or {KEEP}")
    nearest = _nearest(card, metres)
    factor = metres / nearest
    if not 1 / _MAX_GIVEN <= factor <= _MAX_GIVEN or not card.input_scale * factor <= _MAX_GIVEN:
        what = f"the model was trained at {nearest:.4g} m per pixel, more than {_MAX_GIVEN:g} times apart"
        raise ConfigError(f"--ground-resolution {given}: {what}: resample the images, or give {KEEP}")
    return dataclasses.replace(card, ground_resolution=(), input_scale=card.input_scale * factor)


def card_at(card: "ModelCard", metres: float | None, image: Path) -> "ModelCard":
    """The card for an image of this number of metres per pixel: with another input scale where the model's are others.

    An image that does not say its resolution is predicted as it is. Raises ImageError for one that is too different.
    """
    if not card.ground_resolution or metres is None:
        return card
    nearest = _nearest(card, metres)
    factor = metres / nearest
    if 1 / (1 + RESOLUTION_TOLERANCE) <= factor <= 1 + RESOLUTION_TOLERANCE:
        return card
    found = f"has {metres:.4g} m per pixel, and the model was trained at {nearest:.4g} m"
    if not 1 / MAX_FACTOR <= factor <= MAX_FACTOR or not card.input_scale * factor <= _MAX_GIVEN:
        fix = f"resample it, or give --ground-resolution {KEEP} (or its metres per pixel, where those are wrong)"
        raise ImageError(image, f"{found}, more than {MAX_FACTOR:g} times apart", fix)
    _LOG.info(
        "%s %s: resampled by %.4g for the network; --ground-resolution %s leaves that out", image, found, factor, KEEP
    )
    return dataclasses.replace(card, ground_resolution=(), input_scale=card.input_scale * factor)


def _nearest(card: "ModelCard", metres: float) -> float:
    """The resolution of training that is nearest."""
    _, smallest, largest = card.ground_resolution
    return min(max(metres, smallest), largest)


def _number(text: str) -> float | None:
    try:
        return finite_number(float(text))
    except ValueError:
        return None
