"""Numbers of a benchmark: medians, their spread, and ratios that are given only where the spread allows them."""

from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Repeated measurements of one thing, in seconds."""

    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.seconds) < 2:
            raise ValueError(f"a timing of {len(self.seconds)} measurements has no spread; it needs 2 or more")

    @property
    def median(self) -> float:
        """Median, in seconds."""
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """Interquartile range, in seconds."""
        lower, _, upper = quantiles(self.seconds, n=4, method="inclusive")
        return upper - lower

    def to_dict(self) -> dict[str, Any]:
        """For JSON, the single measurements too."""
        return {"median_s": self.median, "iqr_s": self.spread, "samples_s": list(self.seconds)}


def ratio(over: Timing, under: Timing) -> float | None:
    """Ratio of the medians, or None where either spread is as large as the difference: then it would say nothing."""
    difference = abs(over.median - under.median)
    if max(over.spread, under.spread) >= difference:
        return None
    return over.median / under.median
