"""`--fit`: a batch and a crop small enough for a useful number of steps in the time that a run has."""

import logging
import time
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from lightning.fabric import Fabric

from cyclemlp.tasks.base import TrainingParts
from cyclemlp.tasks.options import RunConfig
from cyclemlp.tasks.parameter_groups import with_frozen
from cyclemlp.tasks.registry import AnyTask
from cyclemlp.training.fabric import accelerate
from cyclemlp.training.plan import FEW_STEPS

ConfigT = TypeVar("ConfigT", bound=RunConfig)

MIN_BATCH, MIN_CROP, LESS = 2, 128, 64
"""The smallest batch and crop that are chosen, and by how many pixels a crop shrinks at a time."""
TRAINING_SHARE = 0.8
"""Of --max-time; the rest is for evaluations."""
_MEASURED_STEPS = 2
_WHOLE_IMAGES = 384
"""Crop to begin with where images are not cropped."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """A step of training, and what it costs with another batch or crop: in proportion to the pixels."""

    seconds: float
    batch: int
    crop: int | None
    """Edge in pixels; None where the task has no crops of its own."""

    def with_batch(self, batch: int) -> "Cost":
        """The cost of a step with another batch."""
        return replace(self, seconds=self.seconds * batch / self.batch, batch=batch)

    def with_crop(self, crop: int) -> "Cost":
        """The cost of a step with another crop."""
        assert self.crop is not None
        return replace(self, seconds=self.seconds * (crop / self.crop) ** 2, crop=crop)


def choose(cost: Cost, seconds: float, images: int) -> Cost:
    """The largest batch and crop with which `seconds` allow 1000 steps and a pass over the images, if there are any."""
    while seconds / cost.seconds < FEW_STEPS and cost.batch // 2 >= MIN_BATCH:
        cost = cost.with_batch(cost.batch // 2)
    while (
        cost.crop is not None
        and cost.crop - LESS >= MIN_CROP
        and (seconds / cost.seconds < FEW_STEPS or seconds / cost.seconds * cost.batch < images)
    ):
        cost = cost.with_crop(cost.crop - LESS)
    return cost


def fitted(fabric: Fabric, task: AnyTask, config: ConfigT, dataset: Any) -> ConfigT:
    """The config with --batch-size and --crop-size as small as --max-time makes necessary, with a line in the log.

    Raises what the task raises for options and data that are not usable.
    """
    limit = config.length.max_seconds
    assert limit is not None  # `Length` checks it
    config = _cropped(config)
    parts = with_frozen(task.training_parts(config, dataset), config.optimisation.freeze)
    accelerate(parts.model, config)
    batch, crop = config.optimisation.batch_size, getattr(getattr(config, "augmentation", None), "crop_size", None)
    before = Cost(_seconds_of_a_step(fabric, parts, batch), batch, crop)
    after = choose(before, TRAINING_SHARE * limit, len(parts.samples))
    steps = TRAINING_SHARE * limit / after.seconds
    crops = "" if crop is None else f" and --crop-size {after.crop} (from {crop})"
    _logger.info(
        "--fit: a step took %.2g s; with --batch-size %d (from %d)%s the time allows about %d steps%s",
        *(before.seconds, after.batch, before.batch, crops, steps),
        "" if steps >= FEW_STEPS else ", which is as many as it can: more --max-time would help",
    )
    config = replace(config, optimisation=replace(config.optimisation, batch_size=after.batch))
    return config if crop is None else _with_crop(config, after.crop)


def _cropped(config: ConfigT) -> ConfigT:
    """Whole images have no size that could be reduced."""
    whole = getattr(getattr(config, "augmentation", None), "crop_size", _WHOLE_IMAGES) is None
    return _with_crop(config, _WHOLE_IMAGES) if whole else config


def _with_crop(config: ConfigT, crop: int | None) -> ConfigT:
    augmentation = config.augmentation  # type: ignore[attr-defined]
    return replace(config, augmentation=replace(augmentation, crop_size=crop))  # type: ignore[call-arg]


def _seconds_of_a_step(fabric: Fabric, parts: TrainingParts, batch: int) -> float:
    """Mean time of forward and backward pass, the first one aside, which sets libraries up."""
    network, loss = parts.model.to(fabric.device).train(), parts.loss.to(fabric.device)
    started = 0.0
    for step in range(1 + _MEASURED_STEPS):
        if step == 1:
            started = time.monotonic()
        samples = [parts.samples[(step * batch + place) % len(parts.samples)] for place in range(batch)]
        images, targets = fabric.to_device(parts.collate(samples))
        with fabric.autocast():
            total = loss(network, images, targets)["loss"]
        total.backward()
    return (time.monotonic() - started) / _MEASURED_STEPS
