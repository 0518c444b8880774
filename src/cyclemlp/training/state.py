"""The state of a training run: everything that a step changes and a checkpoint holds."""

import os
from collections.abc import Sequence

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cyclemlp.files import JsonObject
from cyclemlp.tasks.base import ParameterGroups, Targets, TrainingParts
from cyclemlp.tasks.loss import TaskLoss
from cyclemlp.tasks.options import Optimisation, RunConfig
from cyclemlp.tasks.parameter_groups import never_decayed
from cyclemlp.training.loader import ResumableLoader
from cyclemlp.training.muon import Muon
from cyclemlp.training.schedule import Clock, rate_factor, share_done

MAX_WORKERS = 8
MIN_TRAINING_SHARE = 0.5
"""Of --max-time."""


class MovingAverage(AveragedModel):
    """An exponential moving average of parameters and BatchNorm statistics; short runs get a shorter memory.

    The first update copies the weights. The decay of update n + 1 is `decay`, or (1 + n) / (10 + n) where that is less.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=self._average, use_buffers=True)
        self.requires_grad_(False)
        self._decay = decay

    def _average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], _count: Tensor | int) -> None:
        """Update tensors of one type; all of them are handled by a few kernels."""
        if not averaged[0].is_floating_point():  # BatchNorm's counter
            for old, new in zip(averaged, current, strict=True):
                old.copy_(new)
            return
        steps = int(self.n_averaged)  # stays on the CPU, so that reading it does not wait for the GPU
        decay = min(self._decay, (1.0 + steps) / (10.0 + steps))
        get_ema_multi_avg_fn(decay)(averaged, current, steps)  # type: ignore[no-untyped-call]


class Objective(nn.Module):
    """A network and its loss as one module, from a batch to the terms of the loss.

    A loss may call other methods of the network than `forward`; inside one module all of them run under Fabric's
    autocast, and DistributedDataParallel synchronises every gradient.
    """

    def __init__(self, model: nn.Module, loss: TaskLoss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The `loss` of a batch, and its terms, as scalars."""
        return self.loss(self.model, images, targets)


class TrainingState:
    """A network in training, with its moving average, optimiser, batches and place in the run.

    `model` is the network itself, for reading; `objective` is what steps call, wrapped by Fabric.
    """

    def __init__(self, fabric: Fabric, config: RunConfig, parts: TrainingParts) -> None:
        options = config.optimisation
        self.fabric = fabric
        self.config = config
        self.model = parts.model.to(fabric.device)
        self.eval_mode_modules = parts.eval_mode_modules
        self.averaged = MovingAverage(self.model, options.ema) if options.ema else None
        optimizer = _optimizer(options, self.model, parts.groups(self.model))
        self.objective, self.optimizer = fabric.setup(Objective(self.model, parts.loss).train(), optimizer)
        self.loader = _loader(fabric, config, parts)
        self.clock = Clock()
        self.overhead_seconds = 0.0
        """Of --max-time: what the run takes before its first step and after its last one."""
        self.planned_steps: int | None = None
        """About how many steps the run will have, None while that is not known."""
        self.step = 0
        self.progress = 0.0
        self.images_per_step = options.batch_size * options.accumulate * fabric.world_size
        self.images_per_pass = len(parts.samples)
        self.total_steps = config.length.total_steps(self.images_per_pass, self.images_per_step)
        if config.length.max_seconds is None:
            self.planned_steps = self.total_steps

    @property
    def learning_rate(self) -> float:
        """The learning rate at this point of the run."""
        options = self.config.optimisation
        return options.scaled_lr(self.images_per_step) * rate_factor(options, self.progress)

    @property
    def result(self) -> nn.Module:
        """The network that is evaluated and saved: the moving average where there is one."""
        return self.model if self.averaged is None else self.averaged.module

    @property
    def passes(self) -> float:
        """Passes over the training images so far."""
        return self.step * self.images_per_step / self.images_per_pass

    @property
    def training_seconds(self) -> float | None:
        """What --max-time leaves for training: at least half of it, however long the evaluation at the end is."""
        limit = self.config.length.max_seconds
        return None if limit is None else max(limit - self.overhead_seconds, MIN_TRAINING_SHARE * limit)

    def update_progress(self) -> None:
        """Measure the share of the run that is done. It is the same in all processes, which must stop together."""
        elapsed, limit = self.clock.elapsed(), self.training_seconds
        if limit is not None:
            elapsed, limit = self.fabric.broadcast((elapsed, limit))
        self.progress = share_done(self.step, self.total_steps, elapsed, limit)

    def state_dict(self) -> JsonObject:
        """Everything needed to continue exactly; only tensors and plain values."""
        return {
            "step": self.step,
            "elapsed_seconds": self.clock.elapsed(),
            "overhead_seconds": self.overhead_seconds,
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "loader": self.loader.state_dict(),
        }

    def load_state_dict(self, state: JsonObject) -> None:
        """Continue from `state`. Raises ConfigError where the batches would not be the same."""
        self.loader.load_state_dict(state["loader"])
        self.load_network(state)
        self.optimizer.load_state_dict(state["optimizer"])
        if state["precision"]:  # float16's loss scale; another precision has none
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step = int(state["step"])
        self.clock.before = float(state["elapsed_seconds"])
        self.overhead_seconds = state.get("overhead_seconds", 0.0)

    def load_network(self, state: JsonObject) -> None:
        """Take the weights of `state`, and no more of it."""
        self.model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])


def _optimizer(options: Optimisation, model: nn.Module, groups: ParameterGroups) -> torch.optim.Optimizer:
    if options.optimizer != "muon":  # a run has chosen by now
        return torch.optim.AdamW(groups, lr=options.lr)
    names = set(never_decayed(model))
    return Muon(groups, options.lr, kept=(each for name, each in model.named_parameters() if name in names))


def _loader(fabric: Fabric, config: RunConfig, parts: TrainingParts) -> ResumableLoader:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = config.machine.workers
    return ResumableLoader(
        parts.samples,
        config.optimisation.batch_size,
        repeats=parts.repeats,
        aspect_groups=parts.aspect_groups,
        collate=parts.collate,
        seed=config.machine.seed,
        workers=min(usable // 2, MAX_WORKERS) if workers is None else workers,
        rank=fabric.global_rank,
        world=fabric.world_size,
        pin_memory=fabric.device.type == "cuda",
    )
