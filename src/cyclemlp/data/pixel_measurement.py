"""The pixel rule of a run: chosen from its training images, with one line in the log."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from cyclemlp.data.image_errors import MAX_BANDS
from cyclemlp.data.pixel_rule import (
    PHOTO,
    PixelRule,
    Range,
    ValueRule,
    measured_ranges,
    pixels_of,
    select_bands,
    shown_ranges,
    thinned,
)
from cyclemlp.data.rasters import Raster, Values, has_further_band, is_photo, read_raster, with_true_alpha
from cyclemlp.data.sampling import evenly_spaced
from cyclemlp.data.scenes import stored_scene
from cyclemlp.data.windows import windowed_size
from cyclemlp.errors import ConfigError, DataError

WORDS = ("percentile", "dtype", "per-image")
"""What may be given in place of two numbers."""
_HEADERS_READ, _IMAGES_MEASURED = 200, 32
_PIXELS_OF_SCENE = 2**18
_BITS = (8, 10, 12, 14, 16)
_BRIGHT = 0.25
"""Integers whose brightest values reach this share of a range of bits are taken to have that number of bits."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeasuredPixels:
    """How the images of a run become pixels, and how those are normalised."""

    rule: PixelRule = PHOTO
    mean: tuple[float, ...] = ()
    """Mean of each channel of the training images, from 0 to 1; none where ImageNet's serve."""
    std: tuple[float, ...] = ()
    """Its standard deviation."""


def parse_value_range(words: Sequence[str | float] | str | None) -> str | tuple[float, ...] | None:
    """One of `WORDS`, or pairs of numbers, in one text or several. Raises ConfigError for anything else."""
    given = (words if isinstance(words, str) else " ".join(map(str, words or ()))).split()
    if not given:
        return None
    if len(given) == 1 and given[0] in WORDS:
        return given[0]
    try:
        numbers = tuple(map(float, given))
    except ValueError:
        numbers = ()
    pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
    sound = len(numbers) >= 2 and len(numbers) % 2 == 0 and np.isfinite(numbers).all()
    if not sound or any(low >= high for low, high in pairs):
        allowed = f"two numbers, the smaller first, such as 0 4095 (or two for each band), or {', '.join(WORDS)}"
        raise ConfigError(f"--value-range {' '.join(given)} is not allowed: give {allowed}")
    return numbers


def check_bands(bands: Sequence[int] | None) -> None:
    """Raise ConfigError for numbers of bands that cannot be."""
    if bands is None:
        return
    given = " ".join(map(str, bands))
    if not 1 <= len(bands) <= MAX_BANDS or min(bands) < 1 or len(set(bands)) < len(bands):
        raise ConfigError(f"--bands {given} is not allowed: give 1 to {MAX_BANDS} different numbers from 1 on")


@lru_cache(maxsize=4)
def measure_pixels(
    images: tuple[Path, ...], bands: tuple[int, ...] | None, value_range: tuple[str, ...] | None
) -> MeasuredPixels:
    """The pixel rule for these training images and options, with the mean and standard deviation that belong to it.

    Grey and RGB images of 8 bits are photographs; no file but its header is read then. Raises DataError for images
    that do not fit each other or the options, ConfigError for options.
    """
    asked = parse_value_range(value_range)
    check_bands(bands)
    looked_at = evenly_spaced(images, _HEADERS_READ)
    chosen = evenly_spaced(images, _IMAGES_MEASURED)
    if bands is None and asked is None and all(map(is_photo, looked_at)) and not any(map(_has_four_bands, chosen)):
        return MeasuredPixels()
    rasters = _as_one_kind({path: _looked_at(path) for path in chosen})
    first, count = _common(rasters)
    numbers = bands or (() if count in (1, 3) else tuple(range(1, count + 1)))
    sample = np.concatenate([_sample(raster, numbers, str(path)) for path, raster in rasters.items()])
    values, ranges, why = _ranges(sample, asked, first.values.dtype, each=bool(numbers))
    kept = first.values.shape[2] if first.alpha is not None and first.alpha + 1 in numbers else count
    rule = PixelRule(values, numbers, kept if numbers else None, _names(rasters, numbers), ranges)
    mean, std = _statistics(rasters, rule) if numbers else ((), ())
    _tell(rule, count, first.values.dtype.name, why, len(chosen))
    return MeasuredPixels(rule, mean, std)


def _looked_at(path: Path) -> Raster:
    """The values of an image; of one that is read in windows some that lie evenly over it."""
    if windowed_size(path) is None:
        return read_raster(path)
    with stored_scene(path) as scene:
        return with_true_alpha(scene.sampled(_PIXELS_OF_SCENE))


def _has_four_bands(path: Path) -> bool:
    """Whether a photograph's last band is not the transparency that it is marked as."""
    return has_further_band(path) and _looked_at(path).alpha is None


def _as_one_kind(rasters: dict[Path, Raster]) -> dict[Path, Raster]:
    """Without the marks of transparency where some of the images have values in that band."""
    shapes = {raster.values.shape[2] for raster in rasters.values()}
    if len(shapes) > 1 or all(raster.alpha is not None for raster in rasters.values()):
        return rasters
    return {path: replace(raster, alpha=None) for path, raster in rasters.items()}


def _names(rasters: dict[Path, Raster], numbers: tuple[int, ...]) -> tuple[str, ...]:
    """The names of these bands, none where some images have none. Raises DataError for the same names in other orders.

    Names that differ otherwise, such as dates, say nothing of the bands.
    """
    named = [
        (path, tuple(raster.names[number - 1] for number in numbers))
        for path, raster in rasters.items()
        if raster.names
    ]
    if not numbers or len(named) < len(rasters):
        return ()
    first_path, first = named[0]
    for path, names in named:
        if names != first and sorted(names) == sorted(first):
            raise DataError(
                f"{path} has the bands {', '.join(names)}, but {first_path} has {', '.join(first)}: save all with their"
                " bands in one order"
            )
    return first if all(names == first for _, names in named) else ()


def _common(rasters: dict[Path, Raster]) -> tuple[Raster, int]:
    """The first image and its number of bands. Raises DataError where others have another number or type."""
    (first_path, first), *others = rasters.items()
    for path, raster in others:
        same = raster.bands == first.bands or {raster.bands, first.bands} == {1, 3}
        if not same or raster.values.dtype != first.values.dtype:
            theirs, ours = (f"{each.bands} bands of type {each.values.dtype}" for each in (raster, first))
            raise DataError(f"{path} has {theirs}, but {first_path} has {ours}: train on images of one kind")
    return first, first.bands


def _sample(raster: Raster, numbers: tuple[int, ...], name: str) -> Values:
    """Some measured pixels (pixels, bands), or all their values as one band where bands are not told apart."""
    values = select_bands(raster, numbers, name)
    valid = raster.valid(numbers)
    kept = thinned(values if valid is None else values[valid])
    return kept if numbers else kept.reshape(-1, 1)


def _ranges(
    sample: Values, asked: str | tuple[float, ...] | None, dtype: np.dtype[np.generic], *, each: bool
) -> tuple[ValueRule, tuple[Range, ...], str]:
    """The rule, its ranges, and why they were chosen."""
    if asked == "per-image":
        return "per-image", (), "of each image"
    if isinstance(asked, tuple):
        pairs = tuple(zip(asked[::2], asked[1::2], strict=True))
        if len(pairs) not in (1, sample.shape[1]):
            raise ConfigError(
                f"--value-range has {len(pairs)} pairs for {sample.shape[1]} bands: give one, or one each"
            )
        return "fixed", pairs, "given"
    if asked == "dtype" or (asked is None and dtype == np.uint8):
        if dtype.kind == "f":
            raise ConfigError("--value-range dtype is for integers: give two numbers or percentile for float32")
        info = np.iinfo(dtype.name)
        return "fixed", ((float(info.min), float(info.max)),), f"that of {dtype.name}"
    if asked is None and (bits := _bits(sample, dtype)) is not None:
        return "fixed", ((0.0, float(2**bits - 1)),), f"that of {bits} bits"
    return "fixed", measured_ranges(sample[:, None], each=each), "the 0.1 and 99.9 percentiles"


def _bits(sample: Values, dtype: np.dtype[np.generic]) -> int | None:
    """The number of bits of unsigned values; None where they use little of it, so that a measured range is better."""
    if dtype != np.uint16 or not sample.size:
        return None
    bits = next(bits for bits in _BITS if sample.max() < 2**bits)
    return bits if np.percentile(sample, 99.9) >= _BRIGHT * 2**bits else None


def _statistics(rasters: dict[Path, Raster], rule: PixelRule) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over the measured pixels, from 0 to 1."""
    parts = []
    for path, raster in rasters.items():
        valid = raster.valid(rule.bands)
        pixels = pixels_of(select_bands(raster, rule.bands, str(path)), rule, valid)
        parts.append(thinned(pixels if valid is None else pixels[valid]))
    numbers = np.concatenate(parts).astype(np.float64) / 255
    if not len(numbers):
        raise DataError("the training images have no measured pixel: all are nodata or transparent")
    mean, std = numbers.mean(axis=0), np.maximum(numbers.std(axis=0), 1 / 255)
    return tuple(round(float(each), 6) for each in mean), tuple(round(float(each), 6) for each in std)


def _tell(rule: PixelRule, count: int, dtype: str, why: str, measured: int) -> None:
    uses = ""
    if rule.bands:
        uses = f", of which {' '.join(map(str, rule.bands))} are used, normalised by their own mean and deviation"
    ends = f"{shown_ranges(rule.ranges)} ({why})" if rule.ranges else why
    what = "images of %d band%s of type %s%s; value range %s, in 256 steps; measured on %d training images"
    _LOG.info(what, count, "s" * (count != 1), dtype, uses, ends, measured)
