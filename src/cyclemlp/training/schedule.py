"""The learning rate as a function of the share of the run that is done, and the clock that measures this share."""

import math
import time

from cyclemlp.tasks.options import Optimisation

DROP_FACTOR = 0.1


def rate_factor(options: Optimisation, progress: float) -> float:
    """Learning rate at `progress` in [0, 1], as a share of its peak: a linear warm-up, then the decay."""
    if progress < options.warmup:
        return max(progress / options.warmup, 1e-3)  # the very first step should change the weights, too
    if options.schedule == "multistep":
        # Slightly early; otherwise rounding would delay a drop by a step.
        return DROP_FACTOR ** sum(progress > drop - 1e-9 for drop in options.lr_drops)
    rest = min((progress - options.warmup) / (1.0 - options.warmup), 1.0)
    decay = (
        0.5 * (1.0 + math.cos(math.pi * rest)) if options.schedule == "cosine" else (1.0 - rest) ** options.poly_power
    )
    return options.final_lr + (1.0 - options.final_lr) * decay


class Clock:
    """Seconds spent in training, over all the sessions of a run."""

    def __init__(self) -> None:
        self.before = 0.0  # seconds that earlier sessions took
        self._started: float | None = None

    def start(self) -> None:
        """Start counting."""
        self._started = time.monotonic()

    def elapsed(self) -> float:
        """Seconds of training so far."""
        return self.before + (0.0 if self._started is None else time.monotonic() - self._started)


def share_done(step: int, total_steps: int | None, elapsed: float, max_seconds: float | None) -> float:
    """Share of the run that is done, in [0, 1]: by steps or by time, whichever is further."""
    by_steps = step / total_steps if total_steps is not None else 0.0
    by_time = elapsed / max_seconds if max_seconds is not None else 0.0
    return min(max(by_steps, by_time), 1.0)
