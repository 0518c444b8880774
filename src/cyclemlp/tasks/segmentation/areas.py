"""Areas of classes corrected by the errors that a network made on its validation images, with 95 % intervals.

Counting the pixels of a predicted mask measures the mask, not the ground: errors of one class for another seldom
cancel. The stratified estimator of Olofsson et al. (2014), "Good practices for estimating area and assessing accuracy
of land change", Remote Sensing of Environment 148, equation 9, corrects that: of class j the share is the sum over
predicted classes i of (share of i in the mask) x (share of j among the validation pixels predicted as i).

Pixels of an image err together, so that the equation for the error of single, independent pixels (10) would make the
intervals far too narrow. Here the independent units are whole validation images, or blocks of the ground: the error
is that of a ratio estimator under cluster sampling, and of few units the intervals are wider, by Student's t.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from cyclemlp.data.problems import listed
from cyclemlp.documents import finite_number, whole_number
from cyclemlp.errors import ConfigError
from cyclemlp.files import JsonMapping, JsonObject

MAX_CLASSES = 16
"""With more classes the counts are not kept: their number grows with the third power."""
_LEVEL = 0.975
_OF_FEW = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Student's t at 0.975, by degrees of freedom."""
SQUARE_METRES = 10_000
"""Of a hectare."""
ASSUMPTION = "the validation images are a random sample of the kind of ground that the scene shows"

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ValidationCounts:
    """What a network predicted on its validation images, as far as areas need it."""

    confusion: FloatArray
    """(K, K): pixels by class in the labels and predicted class."""
    covariances: FloatArray
    """(K, K, K): for each class in the labels, those of its shares among pixels of the predicted classes."""
    units: int
    """Number of images, or of blocks of the ground, that count as independent of each other."""

    @classmethod
    def of_units(cls, units: Sequence[npt.NDArray[np.int64]]) -> "ValidationCounts":
        """From the confusion matrix (K, K) of each unit; those without a pixel do not count."""
        counts = np.array([unit for unit in units if unit.any()], np.float64)
        total = counts.sum(axis=0)
        predicted = np.maximum(total.sum(axis=0), 1)
        # How far the pixels of each label in a unit are from what its predictions lead to expect, as shares.
        excess = (counts - total / predicted * counts.sum(axis=1, keepdims=True)) / predicted
        number = len(counts)
        covariances = np.einsum("ujp,ujq->jpq", excess, excess) * (number / max(1, number - 1))
        return cls(total, covariances, number)

    def to_dict(self) -> JsonObject:
        """As JSON values."""
        rounded = [[[float(f"{value:.6g}") for value in row] for row in of_class] for of_class in self.covariances]
        return {"units": self.units, "confusion": self.confusion.astype(int).tolist(), "covariances": rounded}

    @classmethod
    def from_dict(cls, values: JsonMapping, classes: int) -> "ValidationCounts":
        """Raises ConfigError for values of another shape or kind."""
        units, confusion = whole_number(values.get("units")), _numbers(values.get("confusion"), (classes,) * 2)
        covariances = _numbers(values.get("covariances"), (classes,) * 3)
        if units is None or units < 0 or confusion is None or covariances is None or confusion.min() < 0:
            raise ConfigError(f"validation_counts: units, confusion and covariances of {classes} classes, or none")
        return cls(confusion, covariances, units)

    def areas(self, mapped: Sequence[int], classes: Sequence[str]) -> JsonObject:
        """Shares of the ground by class, from the pixels of each class in a mask, as JSON values.

        `share`, and `low` and `high` of its 95 % interval; or `reason` alone, why there are none.
        """
        pixels = np.array(mapped, np.float64)
        predicted = self.confusion.sum(axis=0)
        if self.units < 2:
            return {"reason": "there is no second validation image, or block of ground, to tell errors by"}
        if unknown := [
            name for name, count, known in zip(classes, pixels, predicted, strict=True) if count and not known
        ]:
            return {
                "reason": f"{listed(unknown)} was never predicted on validation images, so its errors are not known"
            }
        if not pixels.sum():
            return {"reason": "no pixel was measured"}
        weights = pixels / pixels.sum()
        shares = (self.confusion / np.maximum(predicted, 1)) @ weights
        errors = np.sqrt(np.maximum(np.einsum("p,jpq,q->j", weights, self.covariances, weights), 0))
        margins = _student(self.units - 1) * errors
        low, high = np.clip(shares - margins, 0, 1), np.clip(shares + margins, 0, 1)
        rows = zip(classes, shares.tolist(), low.tolist(), high.tolist(), strict=True)
        found = {name: {"share": share, "low": least, "high": most} for name, share, least, most in rows}
        return {"classes": found, "units": self.units, "assumes": ASSUMPTION}


def in_hectares(areas: JsonObject, pixels: int, pixel_area: float | None) -> JsonObject:
    """With `hectares`, and those of the interval, where pixels have an area; without, shares alone."""
    if pixel_area is None or "classes" not in areas:
        return areas
    all_of_it = pixels * pixel_area / SQUARE_METRES
    names = {"share": "hectares", "low": "hectares_low", "high": "hectares_high"}
    classes = {
        name: {**shares, **{names[key]: value * all_of_it for key, value in shares.items()}}
        for name, shares in areas["classes"].items()
    }
    return {**areas, "classes": classes}


def _student(freedom: int) -> float:
    """The 97.5 % point of Student's t by its expansion in 1 / freedom, right to 0.1 % from 5 degrees on."""
    if freedom in _OF_FEW:
        return _OF_FEW[freedom]
    z = NormalDist().inv_cdf(_LEVEL)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return math.fsum((z, first / freedom, second / freedom**2, third / freedom**3))


def _numbers(values: object, shape: tuple[int, ...]) -> FloatArray | None:
    """Nested lists of finite numbers as an array; None for anything else."""
    flat = [values]
    for length in shape:
        if not all(isinstance(each, list) and len(each) == length for each in flat):
            return None
        flat = [one for each in flat if isinstance(each, list) for one in each]
    if any(finite_number(each) is None for each in flat):
        return None
    return np.array(flat, np.float64).reshape(shape)
