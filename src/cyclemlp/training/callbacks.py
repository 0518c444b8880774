"""What happens between two steps of training, in this order: record, evaluate, keep a checkpoint, show progress."""

import logging
import math
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from cyclemlp.errors import UserError
from cyclemlp.tasks.base import TrainingTask
from cyclemlp.tasks.scores import SCORES, metric_columns
from cyclemlp.training.evaluation import Counts
from cyclemlp.training.module import TrainingModule
from cyclemlp.training.recorder import Recorder
from cyclemlp.training.stopping import StopRequest, TrainingStopped

_logger = logging.getLogger(__name__)

LAST = "last.ckpt"
BEST = "best.ckpt"
SECONDS_BETWEEN_CHECKPOINTS = 60.0
SECONDS_BETWEEN_LINES = 30.0
# Where time is the limit, evaluations may use this share of it; one that alone takes more is given up.
MOST_TIME_EVALUATING = 0.15

Metrics = Mapping[str, Any]


class LossError(UserError):
    """The loss, or a weight, is no longer a finite number."""


class BetweenSteps(Callback):
    """The parts of this module, called in their order after every step."""

    def __init__(self, task: TrainingTask, recorder: Recorder | None, stop: StopRequest) -> None:
        self.losses = Losses(recorder, len(task.samples))
        self.evaluations = Evaluations(task, recorder, stop)
        self._checkpoints = Checkpoints(stop)
        self._progress = ProgressLine(self.losses, self.evaluations)
        self._stop = stop

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Start clocks and bar."""
        module = cast("TrainingModule", pl_module)
        self._stop.install()  # in place of Lightning's handler, which would stop without a checkpoint
        self.losses.restart()
        self._checkpoints.saved_at = time.monotonic()
        self._progress.start(module)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Everything due after this step. A checkpoint comes after the evaluation, whose outcome it holds."""
        module = cast("TrainingModule", pl_module)
        self.losses.after_step(module)
        if self.evaluations.is_due(module):
            self.losses.check(module)
            self.evaluations.run(module)
        stopping = _any_process(trainer, self._stop.signum is not None)
        if stopping or self._checkpoints.is_due(module):
            self.losses.check(module)
            self._checkpoints.save(module)
        self._progress.after_step(module)
        if stopping and module.progress < 1.0:
            raise TrainingStopped(self._stop.signum or signal.SIGTERM, module.global_step, module.config.out)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Close the bar."""
        self._progress.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Close the bar."""
        self._progress.close()

    def state_dict(self) -> dict[str, Any]:
        """What a continued run needs to know of evaluations."""
        return self.evaluations.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        self.evaluations.load_state_dict(state_dict)


class Losses:
    """Writes the mean losses of every few steps down, and ends a run whose loss is not finite.

    Reading a loss waits for the GPU, so there it is done only when a row is due and before a checkpoint. `recorder`
    is None in all processes but the first.
    """

    def __init__(self, recorder: Recorder | None, images_per_epoch: int) -> None:
        self._recorder = recorder
        self._images_per_epoch = images_per_epoch
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._since = 0.0
        self._bad_step: Tensor | None = None
        self.latest = math.nan
        self.images_per_second = math.nan

    def after_step(self, module: TrainingModule) -> None:
        """Take in the losses of a step."""
        step = module.global_step
        for name, value in module.losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._steps += 1
        self._note_if_bad(module.losses["loss"], step)
        due = step % module.config.recording.log_every == 0 or module.progress >= 1.0
        if due or module.device.type == "cpu":
            self.check(module)
        if due:
            self._write(step, module)

    def _note_if_bad(self, loss: Tensor, step: int) -> None:
        if self._bad_step is None:
            self._bad_step = torch.full((), -1, device=loss.device)
        first = (self._bad_step < 0) & ~torch.isfinite(loss)
        self._bad_step = torch.where(first, step, self._bad_step)

    def check(self, module: TrainingModule) -> None:
        """Raise LossError if the loss of any step so far was not finite."""
        step = -1 if self._bad_step is None else int(self._bad_step)
        if step >= 0:
            raise _loss_error(module, f"the loss of step {step} is not finite")

    def _write(self, step: int, module: TrainingModule) -> None:
        images = module.config.optimisation.batch_size * module.trainer.world_size
        means = {name: float(total) / self._steps for name, total in self._sums.items()}
        self.latest = means["loss"]
        self.images_per_second = self._steps * images / (time.monotonic() - self._since)
        values = {
            "epoch": step * images / self._images_per_epoch,
            "seconds": module.clock.elapsed(),
            "lr": module.trainer.optimizers[0].param_groups[0]["lr"],
            "images_per_second": self.images_per_second,
        }
        if self._recorder is not None:
            self._recorder.add(step, values | means)
        self.restart()

    def restart(self) -> None:
        """Begin new means."""
        self._sums, self._steps, self._since = {}, 0, time.monotonic()


def _loss_error(module: TrainingModule, what: str) -> LossError:
    options, run_dir = module.config.optimisation, module.config.out
    advice = f"try a lower --lr (now {options.lr:g}) or a longer --warmup (now {options.warmup:g})"
    if module.trainer.precision not in ("32-true", "64-true"):
        advice += ", or --precision 32-true"
    kept = run_dir / "checkpoints" / LAST
    state = f"The last good checkpoint is {kept}" if kept.is_file() else "There was no checkpoint yet"
    return LossError(f"training stopped: {what}; {advice}. {state}")


class Evaluations:
    """Evaluates at even shares of the run, all but the last time, and keeps the best checkpoint."""

    def __init__(self, task: TrainingTask, recorder: Recorder | None, stop: StopRequest) -> None:
        self._task = task
        self.score = SCORES[task.card.task].main
        self._recorder = recorder
        self._stop = stop
        self._done = 0
        self._seconds = 0.0
        self._latest_seconds = 0.0
        self.best = -1.0
        self.latest: float | None = None

    def is_due(self, module: TrainingModule) -> bool:
        """Whether the run has come to its next evaluation, and has the time for it."""
        wanted = module.config.recording.evaluations
        if not self._done < self._reached(module) < wanted:
            return False
        if module.config.length.max_seconds is None:
            return True
        # The first process decides: clocks differ, and all must take part in an evaluation.
        needed = self._seconds + self._latest_seconds
        cheap = needed <= MOST_TIME_EVALUATING * module.clock.elapsed()
        return bool(module.trainer.strategy.broadcast(cheap or not self._seconds))

    @staticmethod
    def _reached(module: TrainingModule) -> int:
        return int(module.progress * module.config.recording.evaluations + 1e-9)

    def run(self, module: TrainingModule) -> None:
        """Evaluate, unless told to stop meanwhile: then it is made up for when the run continues."""
        started, limit = time.monotonic(), module.config.length.max_seconds
        until = math.inf if limit is None else started + MOST_TIME_EVALUATING * limit
        metrics = self._evaluate(module, until)
        self._latest_seconds = time.monotonic() - started
        self._seconds += self._latest_seconds
        if metrics is None:
            if module.trainer.world_size > 1 or time.monotonic() >= until:  # several stop for no other reason
                self._give_up(module)
            return
        self._done = self._reached(module)
        self.latest = metrics[self.score]
        if self._recorder is not None:
            self._recorder.add(module.global_step, metric_columns(self._task.card.task, metrics))
        if self.latest is not None and self.latest > self.best:
            self.best = self.latest
            _check_weights(module)
            module.trainer.save_checkpoint(module.config.out / "checkpoints" / BEST)

    def _give_up(self, module: TrainingModule) -> None:
        self._latest_seconds = math.inf  # longer than there will ever be time for
        if module.trainer.is_global_zero:
            images = module.config.recording.evaluation_images
            _logger.warning(
                "an evaluation takes more than %.0f %% of --max-time, so there is none before the end: "
                "give fewer --evaluation-images (now %d) to have some",
                *(100 * MOST_TIME_EVALUATING, images),
            )

    def _evaluate(self, module: TrainingModule, until: float) -> Metrics | None:
        trainer = module.trainer
        alone = trainer.world_size == 1
        counts = self._task.evaluator.count(
            module.result,
            module.device,
            most=module.config.recording.evaluation_images,
            part=(trainer.global_rank, trainer.world_size),
            # Of several processes, those that have not got the signal would go on.
            stop=lambda: (alone and self._stop.signum is not None) or time.monotonic() >= until,
        )
        # One that leaves early must not leave the others waiting.
        if _any_process(trainer, counts is None) or counts is None:
            return None
        if not alone:
            counts = _of_all_processes(counts)
        return counts.metrics(self._task.card.classes)

    def state_dict(self) -> dict[str, Any]:
        """What a continued run needs."""
        names = ("_done", "_seconds", "_latest_seconds", "best", "latest")
        return {name.removeprefix("_"): getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it up again."""
        self._done, self._seconds, self._latest_seconds = state["done"], state["seconds"], state["latest_seconds"]
        self.best, self.latest = state["best"], state["latest"]


def _of_all_processes(counts: Counts) -> Counts:
    """The counts of every process added up, in the order of the processes."""
    parts: list[Counts] = [counts] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, counts)
    for part in parts[1:]:
        parts[0].merge(part)
    return parts[0]


class Checkpoints:
    """Keeps `checkpoints/last.ckpt` current: every few steps, or every minute, and at the end."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self.saved_at = 0.0

    def is_due(self, module: TrainingModule) -> bool:
        """Whether it is time for a checkpoint."""
        if module.progress >= 1.0:
            return True
        every = module.config.recording.checkpoint_every
        if every is not None:
            return module.global_step % every == 0
        return _any_process(module.trainer, time.monotonic() - self.saved_at >= SECONDS_BETWEEN_CHECKPOINTS)

    def save(self, module: TrainingModule) -> None:
        """Write it. Raises LossError, and leaves the one before, if a weight is not finite."""
        _check_weights(module)
        module.trainer.save_checkpoint(module.config.out / "checkpoints" / LAST)
        self.saved_at = time.monotonic()


def _check_weights(module: TrainingModule) -> None:
    """A finite loss can still have an infinite gradient, and the next step's loss would show that too late."""
    finite = torch.stack([torch.isfinite(p).all() for p in module.model.parameters()]).all()
    if not bool(finite):
        raise _loss_error(module, f"the weights after step {module.global_step} are not finite")


def _any_process(trainer: Trainer, mine: bool) -> bool:
    """Whether any process says so: all of them must save at the same step."""
    return mine if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(mine, all=False)


class ProgressLine:
    """Loss, score, images per second and time left: a bar on a terminal, elsewhere a line every half minute."""

    def __init__(self, losses: Losses, evaluations: Evaluations) -> None:
        self._losses = losses
        self._evaluations = evaluations
        self._bar: tqdm[Any] | None = None
        self._line_at = 0.0
        self._began = (0.0, 0.0)

    def start(self, module: TrainingModule) -> None:
        """Begin to count the time left."""
        self._line_at = time.monotonic()
        self._began = (self._line_at, module.progress)
        if module.trainer.is_global_zero and sys.stderr.isatty():
            form = "{desc} {percentage:3.0f}% |{bar}| {elapsed}{postfix}"
            self._bar = tqdm(total=1000, bar_format=form, file=sys.stderr)

    def after_step(self, module: TrainingModule) -> None:
        """Show where the run stands, if it is time to."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.n = round(1000 * module.progress)
            self._bar.set_description_str(f"step {module.global_step}", refresh=False)
            self._bar.set_postfix_str(self._text(module.progress, now))
        elif module.trainer.is_global_zero and now - self._line_at >= SECONDS_BETWEEN_LINES:
            self._line_at = now
            text = self._text(module.progress, now)
            _logger.info("step %d, %.0f %%, %s", module.global_step, 100 * module.progress, text)

    def _text(self, progress: float, now: float) -> str:
        parts = [f"loss {self._losses.latest:.4f}"] if math.isfinite(self._losses.latest) else []
        if self._evaluations.latest is not None:
            parts.append(f"{self._evaluations.score} {self._evaluations.latest:.4f}")
        if math.isfinite(self._losses.images_per_second):
            parts.append(f"{self._losses.images_per_second:.1f} img/s")
        began, share = self._began
        if progress > share:
            left = (now - began) * (1.0 - progress) / (progress - share)
            parts.append(f"{tqdm.format_interval(left)} left")
        return ", ".join(parts)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
