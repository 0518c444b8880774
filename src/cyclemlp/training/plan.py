"""What a run can reach in its time, logged in its first seconds from the measured time of its steps."""

import logging
import time

from tqdm import tqdm

from cyclemlp.data.sampling import evenly_spaced
from cyclemlp.inference.evaluate import Evaluator
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.base import DEVELOPMENT
from cyclemlp.tasks.registry import get_task
from cyclemlp.training.state import TrainingState

FEW_STEPS = 1000
"""Runs from random weights rarely become useful with fewer."""
SECONDS_TO_MEASURE = 8.0
STEPS_TO_MEASURE = 3
"""The plan is logged after this number of steps and seconds, the first step aside, which sets libraries up."""
SECONDS_OF_SLOW_STEPS = 20.0
"""Or after fewer steps, where they take this long."""
_TRIED_IMAGES = 3
_REPORT_SECONDS = 8.0
"""For the plots of the report."""
_CHEAPER = "--batch-size, --crop-size, --input-scale or --head-width"

_logger = logging.getLogger(__name__)


def seconds_at_the_end(state: TrainingState, evaluator: Evaluator) -> float:
    """About how long the final evaluation and the report will take: measured on a few images, with random weights."""
    images = evenly_spaced(range(evaluator.size), _TRIED_IMAGES)
    with Predictor.of_training_model(state.result, evaluator.card, state.fabric.device) as predictor:
        evaluator.count(predictor, images[:1])  # sets libraries up
        started = time.monotonic()
        evaluator.count(predictor, images)
        each = (time.monotonic() - started) / len(images)
    shown = min(get_task(evaluator.card.task).report_examples, evaluator.size)
    development = evaluator.dataset.splits.get(DEVELOPMENT)
    chosen_on = 0 if development is None else len(development.images)
    return each * (evaluator.size + chosen_on + shown) + _REPORT_SECONDS


class Plan:
    """Logs once, after some steps, how many the run will have, and what helps where they are few."""

    def __init__(self, state: TrainingState, evaluator: Evaluator) -> None:
        self._state = state
        self._evaluator = evaluator
        self._seconds_at_the_end = 0.0
        self._logged = not state.fabric.is_global_zero
        self._begun: tuple[float, int, float] | None = None

    def reserve(self, seconds_before: float) -> None:
        """Keep time for what comes after the last step; `seconds_before` the first one are spent already."""
        if self._state.fabric.is_global_zero:
            self._seconds_at_the_end = seconds_at_the_end(self._state, self._evaluator)
            self._state.overhead_seconds = seconds_before + self._seconds_at_the_end

    def _seconds_beyond_the_limit(self) -> float:
        state, limit = self._state, self._state.config.length.max_seconds
        return 0.0 if limit is None else (state.training_seconds or 0.0) + state.overhead_seconds - limit

    def after_step(self) -> None:
        """Measure; log the plan when enough is known."""
        if self._logged:
            return
        now, state = time.monotonic(), self._state
        if self._begun is None:
            self._begun = (now, state.step, state.progress)
            return
        began, step, progress = self._begun
        steps, taken = state.step - step, now - began
        enough = taken >= (SECONDS_TO_MEASURE if steps >= STEPS_TO_MEASURE else SECONDS_OF_SLOW_STEPS)
        if enough and state.progress > progress:
            self._logged = True
            self._log(taken / steps, state.step + steps * (1.0 - state.progress) / (state.progress - progress))

    def _log(self, seconds: float, steps: float) -> None:
        state, images = self._state, self._state.images_per_pass
        steps = min(steps, state.total_steps or steps)
        state.planned_steps = max(state.step, round(steps))
        passes = steps * state.images_per_step / images
        end = tqdm.format_interval(self._seconds_at_the_end)
        _logger.info(
            "plan: about %d steps of %.2g s, %.1f passes over %d training images, until %s; then about %s for the"
            " evaluation of %d images and the report",
            *(state.planned_steps, seconds, passes, images),
            *(tqdm.format_interval(steps * seconds), end, self._evaluator.size),
        )
        late = self._seconds_beyond_the_limit()
        if late > 0:
            _logger.warning(
                "the evaluation at the end is long: the command will take %s more than --max-time",
                tqdm.format_interval(late),
            )
        asked_for = state.config.length.steps is not None or state.config.length.epochs is not None
        if not asked_for and (steps < FEW_STEPS or passes < 1):
            few = f"{round(steps)} steps are few" if steps < FEW_STEPS else "that is less than one pass over the images"
            _logger.warning(
                "%s: a smaller %s makes them cheaper, and --fit chooses; or give it more time", few, _CHEAPER
            )
