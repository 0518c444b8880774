"""The evaluations during training: when they are due, what they may cost, and which checkpoint scores best."""

import logging
import math
import time
from dataclasses import asdict, dataclass

import torch

from cyclemlp.files import JsonMapping
from cyclemlp.inference.evaluate import Evaluator
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.base import Counts
from cyclemlp.tasks.registry import get_task
from cyclemlp.training.checkpoints import BEST, save_checkpoint
from cyclemlp.training.fabric import any_process
from cyclemlp.training.recorder import Recorder
from cyclemlp.training.state import TrainingState
from cyclemlp.training.stopping import StopRequest

_logger = logging.getLogger(__name__)

MAX_EVALUATION_SHARE = 0.08
"""Where time is the limit, evaluations may use this share of it; one that alone takes more is abandoned."""


@dataclass
class History:
    """What a continued run needs to know of the evaluations before."""

    best: float = -1.0
    """Best score so far, and the step of its evaluation."""
    best_step: int = 0
    without_rise: int = 0
    """Evaluations since then."""
    latest: float | None = None
    """Score of the last evaluation."""
    due: int = 0
    """Number of evaluations that were due when it was made."""
    seconds: float = 0.0
    """Time spent on evaluations, of which the last took `latest_seconds`."""
    latest_seconds: float = 0.0


class Evaluations:
    """Evaluates at even shares of the run, except at its end, and keeps the checkpoint with the best score."""

    def __init__(
        self, state: TrainingState, evaluator: Evaluator, recorder: Recorder | None, stop: StopRequest
    ) -> None:
        self._state = state
        self._evaluator = evaluator
        self.scores = get_task(evaluator.card.task).scores
        self.recorder = recorder
        self._stop = stop
        self.history = History()

    def is_due(self) -> bool:
        """Whether the run has reached its next evaluation, and has the time for it; the same in all processes."""
        state = self._state
        if not self.history.due < self._reached() < state.config.recording.evaluations:
            return False
        if state.config.length.max_seconds is None:
            return True
        # The first process decides: clocks differ, and all must take part in an evaluation.
        needed = self.history.seconds + self.history.latest_seconds
        cheap = needed <= MAX_EVALUATION_SHARE * state.clock.elapsed()
        return bool(state.fabric.broadcast(cheap or not self.history.seconds))

    def _reached(self) -> int:
        return int(self._state.progress * self._state.config.recording.evaluations + 1e-9)

    def early_end(self) -> str:
        """Why the run ends before its length, as a sentence without a full stop; empty while it goes on."""
        patience, history = self._state.config.recording.patience, self.history
        if patience is None or history.without_rise < patience:
            return ""
        best = (
            "it never had a value"
            if history.best < 0
            else f"the best, {history.best:.4f}, was at step {history.best_step}"
        )
        return f"{self.scores.main} has not risen in {history.without_rise} evaluations (--patience {patience}); {best}"

    def run(self) -> None:
        """Evaluate. If a stop is requested meanwhile, the evaluation is repeated when the run continues."""
        state, started = self._state, time.monotonic()
        limit = state.config.length.max_seconds
        until = math.inf if limit is None else started + MAX_EVALUATION_SHARE * limit
        metrics = self._evaluate(until)
        self.history.latest_seconds = time.monotonic() - started
        self.history.seconds += self.history.latest_seconds
        if metrics is not None:
            self._keep(metrics)
        elif state.fabric.world_size > 1 or time.monotonic() >= until:  # several stop for no other reason
            self.history.latest_seconds = math.inf  # longer than there will ever be time for
            if state.fabric.is_global_zero:
                _logger.warning(
                    "an evaluation takes more than %.0f %% of --max-time, so there is none before the end%s: "
                    "give fewer --evaluation-images (now %d) to have some",
                    100 * MAX_EVALUATION_SHARE,
                    "" if state.config.recording.patience is None else ", and --patience cannot stop the run",
                    min(state.config.recording.evaluation_images, self._evaluator.size),
                )

    def _keep(self, metrics: JsonMapping) -> None:
        self.history.due = self._reached()
        self.history.latest = metrics[self.scores.main]
        if self.recorder is not None:
            self.recorder.add(self._state.step, self.scores.columns(metrics))
        self.history.without_rise += 1
        if self.history.latest is not None and self.history.latest > self.history.best:
            self.history.best, self.history.best_step = self.history.latest, self._state.step
            self.history.without_rise = 0
            save_checkpoint(self._state, asdict(self.history), BEST)

    def _evaluate(self, until: float) -> JsonMapping | None:
        fabric = self._state.fabric
        alone = fabric.world_size == 1
        with Predictor.of_training_model(self._state.result, self._evaluator.card, fabric.device) as predictor:
            images = self._evaluator.sample(self._state.config.recording.evaluation_images)
            # Of several processes, those that have not received the signal would continue.
            counts = self._evaluator.count(
                predictor,
                images[fabric.global_rank :: fabric.world_size],
                stop=lambda: (alone and self._stop.signum is not None) or time.monotonic() >= until,
                progress=fabric.is_global_zero,
            )
        # A process that leaves early must not leave the others waiting.
        if any_process(fabric, counts is None) or counts is None:
            return None
        if not alone:
            parts: list[Counts] = [counts] * fabric.world_size
            torch.distributed.all_gather_object(parts, counts)
            counts = parts[0]
            for part in parts[1:]:
                counts.merge(part)
        return counts.metrics(self._evaluator.card.classes)
