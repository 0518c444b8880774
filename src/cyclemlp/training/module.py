"""What Lightning trains: the network, its moving average, its loss and its learning rate."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from cyclemlp.tasks.segmentation import segmentation_loss
from cyclemlp.training.config import SegmentationConfig
from cyclemlp.training.loader import derive_seed
from cyclemlp.training.schedule import Clock, rate_factor, share_done


class SegmentationModule(LightningModule):
    """Trains `model`, which maps normalised images (B, C, H, W) to logits (B, classes, H, W).

    Whatever is random in a step (dropout, stochastic depth) follows from (seed, step, process), so a continued run
    needs no saved random state. `total_steps` is None where only time limits the run.
    """

    def __init__(
        self,
        model: nn.Module,
        config: SegmentationConfig,
        total_steps: int | None,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        decay = config.optimisation.ema
        self.averaged = _moving_average(model, decay) if decay else None
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.config = config
        self.total_steps = total_steps
        self.clock = Clock()
        self.progress = 0.0
        self.losses: dict[str, Tensor] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW with decay on matrices and kernels only."""
        options = self.config.optimisation
        groups = param_groups_weight_decay(
            self.model, options.weight_decay, no_weight_decay_list=_never_decayed(self.model)
        )
        return torch.optim.AdamW(groups, lr=options.lr)

    def on_train_start(self) -> None:
        """Start the clock and see how much of the run is left."""
        self.clock.start()
        self._update_progress(self.global_step)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Set the step's random seed and learning rate."""
        torch.manual_seed(derive_seed(self.config.machine.seed, 2, self.global_step, self.global_rank))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.learning_rate

    @property
    def learning_rate(self) -> float:
        """The learning rate at this point of the run."""
        options = self.config.optimisation
        return options.lr * rate_factor(self.progress, options.warmup, options.schedule)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """The loss of one batch; its terms are left in `losses`."""
        images, targets = batch
        terms = segmentation_loss(self.model(images), targets, self.class_weights, dice_weight=self.config.loss.dice)
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


def _never_decayed(model: nn.Module) -> list[str]:
    """Full names of the parameters the network's parts declare in `no_weight_decay()`."""
    names: list[str] = []
    for prefix, part in model.named_modules():
        declare = getattr(part, "no_weight_decay", None)
        if callable(declare):
            names += [f"{prefix}.{name}" if prefix else name for name in declare()]
    return names
