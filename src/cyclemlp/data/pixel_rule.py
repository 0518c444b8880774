"""From the values that files store to the pixels that networks see: which bands, and which values are black and white.

A rule is chosen from the training images and kept in the model card, so that training, evaluation, prediction and
exported files see an image alike. Pixels are uint8: between the two ends of its range a band has 256 steps.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cyclemlp.data.images import Pixels, read_image
from cyclemlp.data.rasters import (
    Measured,
    Raster,
    Values,
    checked,
    has_further_band,
    is_photo,
    read_raster,
    read_window,
    with_true_alpha,
)
from cyclemlp.data.windows import Window
from cyclemlp.errors import DataError

ValueRule = Literal["photo", "fixed", "per-image"]
Range = tuple[float, float]
PERCENTILES = (0.1, 99.9)
"""The values that become black and white where they are measured."""
_SLIVER = 1 / 16
"""An image whose values span a smaller share of the range was probably saved with other values."""
_MANY_OUTSIDE = 0.05
"""Share of the values outside of the range that is worth a warning; measured ranges leave some out."""
_MAX_MEASURED = 2**16
_WHITE_OF_8_BITS = 255


@dataclass(frozen=True)
class PixelRule:
    """How an image becomes pixels, uint8 (height, width, channels)."""

    values: ValueRule = "photo"
    """As `read_image` does it; by a fixed range of values; by the range of each image's own values."""
    bands: tuple[int, ...] = ()
    """Numbers, from 1, of the bands that are used, in this order; none for grey or RGB images, which become RGB."""
    file_bands: int | None = None
    """Number of bands, without transparency, that an image must have where `bands` are given."""
    names: tuple[str, ...] = ()
    """Names of the bands that are used."""
    ranges: tuple[Range, ...] = ()
    """Values that become 0 and 255: one pair for all bands, or one for each."""

    @property
    def channels(self) -> int:
        """Channels of the pixels."""
        return len(self.bands) or 3


PHOTO = PixelRule()


def display_pixels(path: Path, window: Window | None = None) -> Pixels:
    """An image, or a window of a large one, as RGB for a person to look at.

    Other than photographs by the range of its own first bands.
    """
    photo = window is None and is_photo(path)
    if photo and not has_further_band(path):
        return read_image(path)
    raster = read_raster(path) if window is None else with_true_alpha(checked(read_window(path, window), path))
    if photo and raster.alpha is not None:
        return read_image(path)
    bands = tuple(range(1, (3 if raster.bands >= 3 else 1) + 1))
    pixels = pixels_of(raster.values[..., : len(bands)], PixelRule("per-image", bands), raster.valid(bands))
    return np.repeat(pixels, 3 // pixels.shape[2], axis=2)


def pixels_of(values: Values, rule: PixelRule, valid: Measured | None = None) -> Pixels:
    """Values (H, W, bands) that are those of the rule, scaled; `valid` are the pixels that a range is measured on."""
    ranges = rule.ranges
    if rule.values != "fixed":
        measured = values if valid is None or not valid.any() else values[valid][:, None]
        ranges = measured_ranges(measured, each=bool(rule.bands))
    scaled = np.stack(
        [_scaled(values[..., band], ranges[band if len(ranges) > 1 else 0]) for band in range(values.shape[2])], axis=-1
    )
    return scaled if scaled.shape[2] == rule.channels else np.repeat(scaled, rule.channels, axis=2)


def measured_ranges(values: Values, *, each: bool) -> tuple[Range, ...]:
    """The values at `PERCENTILES`, of each band or of all together; NaN and infinities do not count."""
    bands = [values[..., band] for band in range(values.shape[2])] if each else [values]
    return tuple(_range_of(band) for band in bands)


def range_doubt(values: Values, valid: Measured | None, rule: PixelRule) -> str:
    """What speaks for another range than that of the rule, in a few words; empty where nothing does."""
    measured = thinned(values if valid is None else values[valid]).astype(np.float64).reshape(-1, values.shape[2])
    measured = measured[np.isfinite(measured).all(axis=1)]
    if not len(measured):
        return "has no measured pixel"
    low, high = (np.array([pair[end] for pair in rule.ranges]) for end in (0, 1))
    outside = float(((measured < low) | (measured > high)).mean())
    text = f"the range of the model is {shown_ranges(rule.ranges)}; give --value-range if the image has another"
    if outside > _MANY_OUTSIDE:
        lowest, highest = measured.min(), measured.max()
        return f"has values from {lowest:g} to {highest:g}, {outside:.0%} of them outside of it and cut off: {text}"
    if values.dtype == np.uint8 and high.max() > _WHITE_OF_8_BITS:
        return f"has values of 8 bits, of which {_WHITE_OF_8_BITS} is white: {text}"
    used = float((np.ptp(measured, axis=0) / (high - low)).max())
    if used < _SLIVER:
        return f"uses only {used:.1%} of the range of values ({measured.min():g} to {measured.max():g}): {text}"
    return ""


def shown_ranges(ranges: tuple[Range, ...]) -> str:
    """For a message: `0 to 4095`."""
    return ", ".join(f"{low:g} to {high:g}" for low, high in ranges)


def thinned(values: Values) -> Values:
    """At most some 65,000 pixels of (H, W, bands) or (pixels, bands), spread evenly."""
    flat = values.reshape(-1, values.shape[-1])
    return flat[:: max(1, len(flat) // _MAX_MEASURED)]


def select_bands(raster: Raster, bands: tuple[int, ...], name: str) -> Values:
    """The bands of these numbers, from 1; none for all but transparency. Raises DataError for one that is missing."""
    count = raster.values.shape[2]
    if missing := [band for band in bands if not 1 <= band <= count]:
        raise DataError(f"{name} has {count} bands, but --bands names {missing[0]}: give numbers from 1 to {count}")
    wanted = [band - 1 for band in bands] or [place for place in range(count) if place != raster.alpha]
    return raster.values[..., wanted]


def selected_bands(raster: Raster, rule: PixelRule, name: str) -> Values:
    """The bands that the rule uses. Raises DataError, naming the image, where it has others, by number or by name."""
    if not rule.bands:
        if raster.bands not in (1, 3):
            raise DataError(
                f"{name} has {raster.bands} bands, but the model was trained on grey or RGB images: choose"
                " an image with 1 or 3 bands, or train on this kind"
            )
    elif rule.file_bands is not None and raster.bands != rule.file_bands and raster.values.shape[2] != rule.file_bands:
        uses = " ".join(rule.names or map(str, rule.bands))
        raise DataError(
            f"{name} has {raster.bands} band{'s' * (raster.bands != 1)}, but the model was trained on images of"
            f" {rule.file_bands}, of which it uses {uses}: choose an image with the same bands"
        )
    selected = select_bands(raster, rule.bands, name)
    theirs = tuple(raster.names[band - 1] for band in rule.bands) if raster.names else ()
    if theirs and rule.names and list(map(_plain, theirs)) != list(map(_plain, rule.names)):
        raise DataError(
            f"{name} has the bands {', '.join(theirs)}, but the model was trained on {', '.join(rule.names)}: choose an"
            " image with the same bands in the same order, or remove names that are wrong"
        )
    return selected


def measured_by(raster: Raster, rule: PixelRule) -> Measured | None:
    """Whether each pixel is measured in the bands that the rule uses; None where all are.

    A last band that is marked as transparency hides nothing where the rule counts it among the bands: near infrared is
    0 on water.
    """
    counted = raster.alpha is not None and raster.values.shape[2] == rule.file_bands
    return (replace(raster, alpha=None) if counted else raster).valid(rule.bands)


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()


def _scaled(band: npt.NDArray[Any], ends: Range) -> Pixels:
    low, high = ends
    numbers = (band.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(np.nan_to_num(np.clip(numbers, 0, 255))).astype(np.uint8)


def _range_of(values: npt.NDArray[Any]) -> Range:
    flat = values.reshape(-1)
    finite = flat[np.isfinite(flat)] if flat.dtype.kind == "f" else flat
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(finite, PERCENTILES))
    return (low, high) if high > low else (low, low + 1.0)
