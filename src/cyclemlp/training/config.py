"""What a training run is made of. Light on purpose: the command line reads this without importing torch."""

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from cyclemlp.errors import ConfigError
from cyclemlp.option_checks import at_least_zero, choice, positive, within
from cyclemlp.training.schedule import DROPS, POLY_POWER, SCHEDULES, Schedule

ScheduleName = Literal["poly", "cosine", "multistep"]

DEFAULT_EPOCHS = 50
DEFAULT_LEAST_STEPS = 3000
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


def group(title: str, order: int) -> Parameter:
    """The options of a part of a config stand under this title in --help."""
    return Parameter(name="*", group=Group(title, sort_key=order))


@dataclass(frozen=True)
class Length:
    """How long to train. With none of the three given: 50 epochs, and no fewer than 3000 steps."""

    epochs: float | None = None
    """Passes over the training images."""
    steps: int | None = None
    """Optimiser steps, in place of epochs."""
    max_time: str | None = None
    """Training time such as 5m, 90s or 1h30m; the learning rate reaches its end just then. The run stops at whichever limit comes first. Evaluations on the way count, and take at most 15 % of it; the last one and the report come after it."""  # noqa: E501

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise ConfigError("--epochs and --steps were both given: give one of them")
        positive(self, "epochs", "steps")
        if self.max_time is not None:
            parse_duration(self.max_time)

    @property
    def max_seconds(self) -> float | None:
        """The time limit in seconds, None where there is none."""
        return None if self.max_time is None else parse_duration(self.max_time)

    def total_steps(self, images: int, images_per_step: int) -> int | None:
        """Steps of the whole run over `images` training images; None where only time limits it."""
        if self.steps is not None:
            return self.steps
        if self.epochs is not None:
            return max(1, round(self.epochs * images / images_per_step))
        if self.max_time is not None:
            return None
        return max(DEFAULT_LEAST_STEPS, round(DEFAULT_EPOCHS * images / images_per_step))


@dataclass(frozen=True)
class Optimisation:
    """The optimiser is AdamW; norms and biases are not decayed."""

    batch_size: int = 8
    """Crops per step and device."""
    lr: float = 1e-3
    """Peak learning rate."""
    lr_batch: int | None = None
    """The learning rate is meant for this many images a step, and scaled in proportion to how many there are; by default it is taken as it is."""  # noqa: E501
    weight_decay: float = 0.05
    """AdamW weight decay."""
    warmup: float = 0.05
    """Share of the run over which the learning rate rises to its peak."""
    schedule: ScheduleName = "poly"
    """How the learning rate falls afterwards; multistep cuts it to a tenth at each of --lr-drops."""
    final_lr: float = 0.0
    """Learning rate at the end of the run, as a share of the peak; multistep does without."""
    poly_power: float = POLY_POWER
    """Power of the poly schedule; 1 falls in a straight line."""
    lr_drops: Annotated[tuple[float, ...], Parameter(consume_multiple=True)] = DROPS
    """Shares of the run at which the multistep schedule cuts the learning rate; by default after 8 and 11 epochs of 12."""  # noqa: E501
    clip_norm: float = 1.0
    """Largest gradient norm; 0 does not clip."""
    ema: float = 0.999
    """Decay of the moving average of the weights, which is what is evaluated and kept; 0 keeps the raw weights."""
    drop_path: float = 0.0
    """Stochastic depth rate of the backbone."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """Number format; auto is bf16-mixed on a GPU that has it, 32-true elsewhere."""

    def __post_init__(self) -> None:
        positive(self, "batch_size", "lr", "lr_batch", "poly_power")
        at_least_zero(self, "weight_decay", "clip_norm")
        choice(self, "schedule", SCHEDULES)
        choice(self, "precision", ("auto", "32-true", "bf16-mixed", "16-mixed"))
        for name in ("warmup", "ema", "drop_path", "final_lr"):
            within(self, name, 0.0, 1.0, upper_open=True)
        if not all(0 < drop < 1 for drop in self.lr_drops):
            given = " ".join(f"{drop:g}" for drop in self.lr_drops)
            raise ConfigError(f"--lr-drops {given}: shares of the run above 0 and below 1, such as 0.67 0.92")

    def rate_over_run(self) -> Schedule:
        """How the learning rate goes."""
        return Schedule(self.schedule, self.warmup, self.final_lr, self.poly_power, self.lr_drops)

    def scaled_lr(self, images_per_step: int) -> float:
        """The peak learning rate of a run with so many images a step."""
        return self.lr if self.lr_batch is None else self.lr * images_per_step / self.lr_batch


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training images; validation images are never changed."""

    crop_size: int = 256
    """Edge of the square training crop, in pixels."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest factor a crop is resized by."""
    scale_draw: Literal["log-uniform", "uniform"] = "log-uniform"
    """How the factor is drawn between them: as often halved as doubled, or evenly as the papers do."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    vertical_flip: float = 0.0
    """Probability of an upside-down flip."""
    brightness: float = 0.2
    """Largest relative change of brightness."""
    contrast: float = 0.2
    """Largest relative change of contrast."""
    saturation: float = 0.2
    """Largest relative change of saturation."""
    hue: float = 0.0
    """Largest shift of hue, as a share of the colour circle; slow on a CPU."""
    colour_probability: float = 1.0
    """Probability of each of these four changes."""
    rare_class_crops: float = 0.25
    """Share of crops that hold a pixel of a class drawn from those in the image, rare classes more often."""
    largest_class: float = 1.0
    """Crops in which one class has this share or more of the labelled pixels are drawn again, up to 10 times; 1 takes all."""  # noqa: E501

    def __post_init__(self) -> None:
        if self.crop_size < 32:
            raise ConfigError(f"--crop-size {self.crop_size} is too small: 32 or more")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"--scale {self.scale[0]} {self.scale[1]}: two factors above 0, smaller first")
        for name in ("flip", "vertical_flip", "rare_class_crops", "colour_probability", "largest_class"):
            within(self, name, 0.0, 1.0)
        positive(self, "largest_class")
        choice(self, "scale_draw", ("log-uniform", "uniform"))
        for name in ("brightness", "contrast", "saturation"):
            within(self, name, 0.0, 1.0, upper_open=True)
        within(self, "hue", 0.0, 0.5)


@dataclass(frozen=True)
class Loss:
    """What is minimised: cross entropy, weighted by class, and optionally Dice."""

    class_weights: Literal["none", "fourth-root-inverse", "sqrt-inverse", "inverse"] = "none"
    """Weight of each class, from the number of its pixels in the training masks."""
    dice: float = 0.0
    """Weight of the Dice term beside cross entropy, which counts every class alike; 0 leaves it out."""
    auxiliary: float = 0.4
    """Weight of the cross entropy of the auxiliary head that upernet is trained with; 0 trains without one."""

    def __post_init__(self) -> None:
        choice(self, "class_weights", ("none", "fourth-root-inverse", "sqrt-inverse", "inverse"))
        at_least_zero(self, "dice", "auxiliary")


@dataclass(frozen=True)
class Recording:
    """What a run writes down while it goes."""

    evaluations: int = 10
    """Evaluations on the validation images, spread evenly over the run; the last one is at its end."""
    evaluation_images: int = 200
    """Most validation images used by the evaluations before the last one, spread evenly; the last uses all."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; by default one about every minute. One is always written at the end."""
    log_every: int = 10
    """Steps between the lines of metrics.csv."""

    def __post_init__(self) -> None:
        positive(self, "evaluations", "evaluation_images", "checkpoint_every", "log_every")


@dataclass(frozen=True)
class Machine:
    """Where and how fast it runs."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of processor."""
    devices: int = 1
    """Number of processors; with more than one, each takes batch-size crops a step."""
    workers: int | None = None
    """Processes that read and augment images; by default half the processors, at most 8. The result does not depend on it."""  # noqa: E501
    seed: int = 0
    """Seed of everything random: two runs with the same seed on the same machine are the same."""
    checkpoint_activations: bool = False
    """Compute the activations of the backbone's blocks again in the backward pass instead of keeping them: less memory, a step takes longer, what is learnt is the same."""  # noqa: E501
    compile: bool = False
    """Compile the network with torch.compile; where there is no C++ compiler the run goes on without."""

    def __post_init__(self) -> None:
        choice(self, "device", ("auto", "cpu", "cuda", "mps"))
        positive(self, "devices")
        at_least_zero(self, "workers", "seed")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What the runs of all tasks have; only `data` has to be given."""

    data: Path
    """Folder with the training and validation data."""
    model: str = "cyclemlp_nano"
    """Backbone, by its timm name."""
    out: Path = Path("runs/run")
    """Run folder; new or empty, unless --resume is given."""
    resume: bool = False
    """Continue the run in --out, exactly where its last checkpoint was."""
    init: Path | None = None
    """Start from these weights: a backbone checkpoint, a run folder or its model.safetensors, or `authors` for those that the authors of --model published."""  # noqa: E501
    length: Annotated[Length, group("Length", 1)] = field(default_factory=Length)
    optimisation: Annotated[Optimisation, group("Optimisation", 2)] = field(default_factory=Optimisation)
    recording: Annotated[Recording, group("Recording", 5)] = field(default_factory=Recording)
    machine: Annotated[Machine, group("Machine", 6)] = field(default_factory=Machine)


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(RunConfig):
    """A whole segmentation run; only `data` has to be given."""

    data: Path
    """Folder with images/train, images/val, masks/train, masks/val and, optionally, classes.txt."""
    out: Path = Path("runs/segmentation")
    """Run folder; new or empty, unless --resume is given."""
    head: str = "semantic-fpn"
    """Segmentation head: semantic-fpn or upernet."""
    head_width: int | None = None
    """Channels of the head; by default the papers' (256 for semantic-fpn, 512 for upernet)."""
    input_scale: float = 1.0
    """Factor images are enlarged by before the network, for objects only a few pixels wide."""
    short_side: int | None = None
    """Pixels that an image's shorter edge is brought to first, in training and afterwards; 512 for ADE20K. By default it is kept."""  # noqa: E501
    long_side: int | None = None
    """Most pixels of the longer edge then; the image is made smaller where it would have more."""
    window: int | None = None
    """Edge of the sliding window in evaluation and prediction, in network pixels; by default whole images."""
    augmentation: Annotated[Augmentation, group("Augmentation", 3)] = field(default_factory=Augmentation)
    loss: Annotated[Loss, group("Loss", 4)] = field(default_factory=Loss)

    def __post_init__(self) -> None:
        positive(self, "input_scale", "short_side", "long_side")
        if self.head_width is not None and self.head_width < 8:
            raise ConfigError(f"--head-width {self.head_width} is too small: 8 or more")
        if self.window is not None and self.window < 32:
            raise ConfigError(f"--window {self.window} is too small: 32 or more")


# What may differ between a run and its continuation: nothing that changes the batches or the network.
RESUMABLE_CHANGES = frozenset(
    {"data", "out", "resume", "init", "epochs", "steps", "max-time", "evaluations", "evaluation-images"}
    | {"checkpoint-every", "log-every", "device", "workers", "precision", "window", "crop"}
    | {"checkpoint-activations", "compile"}
)


def flat(config: RunConfig) -> dict[str, Any]:
    """Every option by its name on the command line, as plain values that YAML can hold."""
    options: dict[str, Any] = {}
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        parts = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else {entry.name: value}  # type: ignore[arg-type]
        options |= {name.replace("_", "-"): _plain(part) for name, part in parts.items()}
    return options


def parse_duration(text: str) -> float:
    """Seconds of `5m`, `90s`, `1h30m` or `300`. Raises ConfigError for anything else and for zero."""
    match = _DURATION.fullmatch(text.strip())
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if not total:
        raise ConfigError(f"--max-time {text!r} is not a time: write 90s, 5m or 1h30m")
    return float(total)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
