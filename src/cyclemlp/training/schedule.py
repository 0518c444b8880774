"""The learning rate over a run, as a function of the share of the run that is done."""

import math
import time
from dataclasses import dataclass

SCHEDULES = ("poly", "cosine", "multistep")
POLY_POWER = 0.9
DROPS = (8 / 12, 11 / 12)
DROP_FACTOR = 0.1


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes over a run: a linear rise, then a fall of one of the shapes of `SCHEDULES`."""

    shape: str = "poly"
    """`poly` and `cosine` end at `final`; `multistep` is cut to a tenth at each of `drops`."""
    warmup: float = 0.0
    """Share of the run that the rise takes."""
    final: float = 0.0
    """The rate at the end, as a share of the peak."""
    power: float = POLY_POWER
    """Power of `poly`; 1 is a straight line."""
    drops: tuple[float, ...] = DROPS
    """Shares of the run, warm-up included, at which `multistep` is cut."""

    def factor(self, progress: float) -> float:
        """Learning rate at `progress` in [0, 1], as a share of its peak."""
        if progress < self.warmup:
            return max(progress / self.warmup, 1e-3)  # the very first step should move, too
        if self.shape == "multistep":
            # A hair early, or else rounding would let the rate drop a step late.
            return DROP_FACTOR ** sum(progress > drop - 1e-9 for drop in self.drops)
        rest = min((progress - self.warmup) / (1.0 - self.warmup), 1.0)
        fall = 0.5 * (1.0 + math.cos(math.pi * rest)) if self.shape == "cosine" else float((1.0 - rest) ** self.power)
        return self.final + (1.0 - self.final) * fall


class Clock:
    """Seconds spent in training, over all the sessions of a run."""

    def __init__(self) -> None:
        self._before = 0.0
        self._started: float | None = None

    def start(self) -> None:
        """Begin to count; what `resume_from` set is kept."""
        self._started = time.monotonic()

    def resume_from(self, seconds: float) -> None:
        """Count on from `seconds`, spent in earlier sessions."""
        self._before = seconds

    def elapsed(self) -> float:
        """Seconds so far."""
        return self._before + (0.0 if self._started is None else time.monotonic() - self._started)


def share_done(step: int, total_steps: int | None, elapsed: float, max_seconds: float | None) -> float:
    """How much of the run is done, in [0, 1]: by steps or by time, whichever is further."""
    by_steps = step / total_steps if total_steps is not None else 0.0
    by_time = elapsed / max_seconds if max_seconds is not None else 0.0
    return min(max(by_steps, by_time), 1.0)
