"""The learning rate over a run, as a function of the share of the run that is done."""

import math
import time

POLY_POWER = 0.9


def rate_factor(progress: float, warmup: float, shape: str, final: float = 0.0) -> float:
    """Learning rate at `progress` in [0, 1], as a share of its peak: a linear rise, then `shape` down to `final`."""
    if progress < warmup:
        return max(progress / warmup, 1e-3)  # the very first step should move, too
    rest = min((progress - warmup) / (1.0 - warmup), 1.0)
    fall = 0.5 * (1.0 + math.cos(math.pi * rest)) if shape == "cosine" else float((1.0 - rest) ** POLY_POWER)
    return final + (1.0 - final) * fall


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
