"""What the losses say: rows of metrics.csv, and the end of a run that has diverged."""

import math
import time

import torch
from torch import Tensor

from cyclemlp.errors import UserError
from cyclemlp.training.checkpoints import checkpoint_path
from cyclemlp.training.recorder import Recorder
from cyclemlp.training.state import TrainingState


class LossError(UserError):
    """The loss, or a weight, is no longer a finite number."""


class LossMonitor:
    """Records the mean losses of every few steps, and ends a run whose loss is not finite.

    Reading a loss waits for the GPU, so there it is done only when a row is due and before a checkpoint. `recorder`
    is None in all processes but the first.
    """

    def __init__(self, state: TrainingState, recorder: Recorder | None, images_per_epoch: int) -> None:
        self._state = state
        self._recorder = recorder
        self._images_per_epoch = images_per_epoch
        self._bad_step = torch.full((), -1, device=state.fabric.device)
        self.latest = math.nan
        self.images_per_second = math.nan
        self._restart()

    def _restart(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._since = time.monotonic()

    def after_step(self, terms: dict[str, Tensor]) -> None:
        """Add the losses of a step."""
        state = self._state
        for name, value in terms.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps += 1
        first = (self._bad_step < 0) & ~torch.isfinite(terms["loss"])
        self._bad_step = torch.where(first, state.step, self._bad_step)
        due = state.step % state.config.recording.log_every == 0 or state.progress >= 1.0
        if due or state.fabric.device.type == "cpu":
            self.check_losses()
        if due:
            self._write()

    def _write(self) -> None:
        state, images = self._state, self._state.images_per_step
        means = {name: float(total) / self._steps for name, total in self._sums.items()}
        self.latest = means["loss"]
        self.images_per_second = self._steps * images / (time.monotonic() - self._since)
        values = {
            "epoch": state.step * images / self._images_per_epoch,
            "seconds": state.clock.elapsed(),
            "lr": state.optimizer.param_groups[0]["lr"],
            "images_per_second": self.images_per_second,
        }
        if self._recorder is not None:
            self._recorder.add(state.step, values | means)
        self._restart()

    def check_losses(self) -> None:
        """Raise LossError if the loss of any step so far was not finite."""
        step = int(self._bad_step)
        if step >= 0:
            raise self._error(f"the loss of step {step} is not finite")

    def check(self) -> None:
        """Raise LossError if a loss or a weight is not finite, so that neither is evaluated or saved.

        A finite loss can still have an infinite gradient, and the next step's loss would show that too late.
        """
        self.check_losses()
        finite = torch.stack([torch.isfinite(p).all() for p in self._state.model.parameters()]).all()
        if not bool(finite):
            raise self._error(f"the weights after step {self._state.step} are not finite")

    def _error(self, what: str) -> LossError:
        options, kept = self._state.config.optimisation, checkpoint_path(self._state.config.run_dir)
        advice = f"try a lower --lr (now {options.lr:g}) or a longer --warmup (now {options.warmup:g})"
        if self._state.fabric.strategy.precision.precision != "32-true":
            advice += ", or --precision 32-true"
        saved = f"The last good checkpoint is {kept}" if kept.is_file() else "There was no checkpoint yet"
        return LossError(f"training stopped: {what}; {advice}. {saved}")
