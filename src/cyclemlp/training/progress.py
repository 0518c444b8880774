"""How far a run is: a progress bar on a terminal or in a notebook, elsewhere a line every half minute."""

import logging
import math
import sys
import time

from tqdm import tqdm

from cyclemlp.progress import NEXT_LINES, shows_bars
from cyclemlp.training.evaluations import Evaluations
from cyclemlp.training.losses import LossMonitor
from cyclemlp.training.state import TrainingState

_logger = logging.getLogger(__name__)


class ProgressLine:
    """Shows loss, score, images per second and time left; only the first process does."""

    def __init__(self, state: TrainingState, losses: LossMonitor, evaluations: Evaluations) -> None:
        self._state = state
        self._losses = losses
        self._evaluations = evaluations
        self._line_at = time.monotonic()
        self._began = (self._line_at, state.progress)
        self._first_step = state.step
        shown = state.fabric.is_global_zero and shows_bars()
        form = "{desc} {percentage:3.0f}% |{bar}| {elapsed}{postfix}"
        self._bar = tqdm(total=1000, bar_format=form, file=sys.stderr, disable=not shown)

    def after_step(self) -> None:
        """Show the state of the run, if it is time to."""
        state, now = self._state, time.monotonic()
        if not self._bar.disable:
            self._bar.n = round(1000 * state.progress)
            self._bar.set_description_str(self._steps(), refresh=False)
            self._bar.set_postfix_str(self._text(now))
        elif state.fabric.is_global_zero and now - self._line_at >= NEXT_LINES:
            self._line_at = now
            _logger.info("%s, %.0f %%, %s", self._steps(), 100 * state.progress, self._text(now))

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _steps(self) -> str:
        state = self._state
        return f"step {state.step}" + (f"/{self._expected_steps()}" if state.planned_steps else "")

    def _expected_steps(self) -> int:
        """Of the whole run: as planned, or where time ends it, by the pace so far, which no plan knows beforehand."""
        state, (_, share) = self._state, self._began
        if state.planned_steps == state.total_steps or state.progress <= share:
            return state.planned_steps or state.step
        taken = (state.step - self._first_step) / (state.progress - share)
        return state.step + round(taken * (1.0 - state.progress))

    def _text(self, now: float) -> str:
        parts = [f"loss {self._losses.latest:.4f}"] if math.isfinite(self._losses.latest) else []
        if self._evaluations.history.latest is not None:
            parts.append(f"{self._evaluations.scores.main} {self._evaluations.history.latest:.4f}")
        if math.isfinite(self._losses.images_per_second):
            parts.append(f"{self._losses.images_per_second:.1f} img/s")
        if (left := self._seconds_left(now)) is not None:
            parts.append(f"{tqdm.format_interval(left)} left")
        return ", ".join(parts)

    def _seconds_left(self, now: float) -> float | None:
        """By the pace so far, and not more than `--max-time` leaves; None before there is a pace."""
        (began, share), state = self._began, self._state
        if state.progress <= share:
            return None
        left = (now - began) * (1.0 - state.progress) / (state.progress - share)
        if state.training_seconds is not None:
            left = min(left, state.training_seconds - state.clock.elapsed())
        return max(left, 0.0)
