"""The learning rate as a function of the share of the run that is done, and the clock that measures this share."""

import math
import time
from dataclasses import dataclass

from cyclemlp.tasks.options import LR_DROPS, POLY_POWER, Optimisation

DROP_FACTOR = 0.1


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a run: a linear warm-up, then a decay of one of the shapes in `SCHEDULES`."""

    shape: str = "poly"
    """`poly` and `cosine` end at `final`; `multistep` is cut to a tenth at each of `drops`."""
    warmup: float = 0.0
    """Share of the run that the warm-up takes."""
    final: float = 0.0
    """The rate at the end, as a share of the peak."""
    power: float = POLY_POWER
    """Power of `poly`; 1 is a straight line."""
    drops: tuple[float, ...] = LR_DROPS
    """Shares of the run, warm-up included, at which `multistep` is cut."""

    @classmethod
    def of(cls, options: Optimisation) -> "Schedule":
        """The schedule that the options of a run ask for."""
        return cls(options.schedule, options.warmup, options.final_lr, options.poly_power, options.lr_drops)

    def factor(self, progress: float) -> float:
        """Learning rate at `progress` in [0, 1], as a share of its peak."""
        if progress < self.warmup:
            return max(progress / self.warmup, 1e-3)  # the very first step should change the weights, too
        if self.shape == "multistep":
            # Slightly early; otherwise rounding would delay a drop by a step.
            return DROP_FACTOR ** sum(progress > drop - 1e-9 for drop in self.drops)
        rest = min((progress - self.warmup) / (1.0 - self.warmup), 1.0)
        decay = 0.5 * (1.0 + math.cos(math.pi * rest)) if self.shape == "cosine" else float((1.0 - rest) ** self.power)
        return self.final + (1.0 - self.final) * decay


class Clock:
    """Seconds spent in training, over all the sessions of a run."""

    def __init__(self) -> None:
        self._before = 0.0
        self._started: float | None = None

    def start(self) -> None:
        """Start counting, from what `resume_from` has set."""
        self._started = time.monotonic()

    def resume_from(self, seconds: float) -> None:
        """Continue from `seconds`, which earlier sessions took."""
        self._before = seconds

    def elapsed(self) -> float:
        """Seconds so far."""
        return self._before + (0.0 if self._started is None else time.monotonic() - self._started)


def share_done(step: int, total_steps: int | None, elapsed: float, max_seconds: float | None) -> float:
    """Share of the run that is done, in [0, 1]: by steps or by time, whichever is further."""
    by_steps = step / total_steps if total_steps is not None else 0.0
    by_time = elapsed / max_seconds if max_seconds is not None else 0.0
    return min(max(by_steps, by_time), 1.0)
