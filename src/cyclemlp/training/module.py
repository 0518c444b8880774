"""What Lightning trains: the network, its moving average, its loss and its learning rate."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from cyclemlp.tasks.base import ParameterGroups, TaskLoss
from cyclemlp.tasks.options import RunConfig
from cyclemlp.training.loader import derive_seed
from cyclemlp.training.schedule import Clock, share_done


class TrainingModule(LightningModule):
    """Trains `model`, which maps normalised images (B, C, H, W) to whatever `loss` makes a number of.

    Whatever is random in a step (dropout, stochastic depth, mixing) follows from (seed, step, process), so a
    continued run needs no saved random state. `total_steps` is None where only time limits the run; `groups` makes the
    optimiser's groups of the network. `idle` parts of the network stay as in prediction.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: TaskLoss,
        config: RunConfig,
        total_steps: int | None,
        *,
        groups: Callable[[nn.Module], ParameterGroups],
        idle: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.model = model
        decay = config.optimisation.ema
        self.averaged = _moving_average(model, decay) if decay else None
        self.loss = loss
        self.config = config
        self.total_steps = total_steps
        self.clock = Clock()
        self.progress = 0.0
        self.losses: dict[str, Tensor] = {}
        self._groups = groups
        self._idle = list(idle)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on the groups."""
        return torch.optim.AdamW(self._groups(self.model), lr=self.config.optimisation.lr)

    def on_train_start(self) -> None:
        """Start the clock and see how much of the run is left."""
        self.clock.start()
        self._update_progress(self.global_step)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Set the step's random seed and learning rates."""
        torch.manual_seed(derive_seed(self.config.machine.seed, 2, self.global_step, self.global_rank))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.learning_rate * group.get("lr_scale", 1.0)  # timm only notes the scale down
        for part in self._idle:  # an evaluation puts the whole network back into training
            part.eval()

    @property
    def learning_rate(self) -> float:
        """The learning rate at this point of the run."""
        options = self.config.optimisation
        peak = options.scaled_lr(options.batch_size * self.trainer.world_size)
        return peak * options.rate_over_run().factor(self.progress)

    def training_step(self, batch: tuple[Tensor, Any], batch_idx: int) -> Tensor:  # noqa: ARG002
        """The loss of one batch; its terms are left in `losses`."""
        images, targets = batch
        terms: dict[str, Tensor] = self.loss(self.model, images, targets)
        self.losses = {name: term.detach() for name, term in terms.items()}
        return terms["loss"]

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One step of the optimiser, then of the moving average."""
        super().optimizer_step(*args, **kwargs)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        self._update_progress(self.global_step + 1)  # Lightning counts the step after this hook

    def _update_progress(self, steps_done: int) -> None:
        elapsed = self.clock.elapsed()
        limit = self.config.length.max_seconds
        if limit is not None and self.trainer.world_size > 1:
            elapsed = self.trainer.strategy.broadcast(elapsed)  # all processes must stop at the same step
        self.progress = share_done(steps_done, self.total_steps, elapsed, limit)
        if self.progress >= 1.0:
            self.trainer.should_stop = True

    @property
    def result(self) -> nn.Module:
        """The network that is evaluated and kept: the moving average where there is one."""
        return self.model if self.averaged is None else self.averaged.module

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the time spent."""
        checkpoint["elapsed_seconds"] = self.clock.elapsed()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Count on from the time spent before."""
        self.clock.resume_from(checkpoint["elapsed_seconds"])


def _moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of parameters and BatchNorm statistics; short runs get a shorter memory."""

    def average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        if not averaged.is_floating_point():  # BatchNorm's counter
            return current
        steps = float(count)
        return averaged.lerp(current, 1.0 - min(decay, (1.0 + steps) / (10.0 + steps)))

    return AveragedModel(model, avg_fn=average, use_buffers=True).requires_grad_(False)
