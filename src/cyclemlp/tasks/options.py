"""The options of a training run. This module does not import torch, so that the command line answers quickly."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import Group, Parameter

from cyclemlp.data.class_choice import ClassChoice
from cyclemlp.data.held_out import HoldOut, ValidationOptions
from cyclemlp.errors import ConfigError
from cyclemlp.files import JsonObject
from cyclemlp.option_checks import at_least_zero, choice, positive, within

ScheduleName = Literal["poly", "cosine", "multistep"]
FixedPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
LoggerName = Literal["csv", "tensorboard", "mlflow", "wandb"]
OptimizerName = Literal["auto", "muon", "adamw"]
SCHEDULES: tuple[str, ...] = get_args(ScheduleName)
OPTIMIZERS: tuple[str, ...] = get_args(OptimizerName)
MOST_FOR_MUON = 8_000_000
"""Parameters of a network that auto trains with Muon. With it a ResNet-18 of 11 million takes twice as long for a step,
on one core with four crops of 256 pixels, and learns less in the same time."""
RESUMABLE = {"resumable": True}
"""Metadata of the options that may differ between a run and its continuation: those change neither the batches nor the
network."""

DEFAULT_EPOCHS = 50
DEFAULT_MIN_STEPS = 3000
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


def group(title: str, order: int) -> Parameter:
    """Show the options of one part of a config under this title in --help."""
    return Parameter(name="*", group=Group(title, sort_key=order))


@dataclass(frozen=True)
class Length:
    """How long to train. By default 50 epochs, but at least 3000 steps."""

    epochs: float | None = field(default=None, metadata=RESUMABLE)
    """Passes over the training images."""
    steps: int | None = field(default=None, metadata=RESUMABLE)
    """Optimiser steps, instead of epochs."""
    max_time: str | None = field(default=None, metadata=RESUMABLE)
    """Time for the whole command, such as 5m, 90s or 1h30m. Time for the evaluation at the end is kept, up to half of it, and the learning rate reaches its final value before that; evaluations during training take at most 8 %. The run stops at whichever limit comes first."""  # noqa: E501

    fit: bool = field(default=False, metadata=RESUMABLE)
    """With --max-time: reduce --batch-size and --crop-size as far as needed for 1000 steps and a pass over the images in that time."""  # noqa: E501

    def __post_init__(self) -> None:
        if self.fit and self.max_time is None:
            raise ConfigError("--fit chooses what fits into --max-time: give that too, such as --max-time 15m")
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
        return max(DEFAULT_MIN_STEPS, round(DEFAULT_EPOCHS * images / images_per_step))


@dataclass(frozen=True)
class Optimisation:
    """How weights follow gradients; norms and biases are not decayed."""

    batch_size: int = 8
    """Crops per batch and device."""
    accumulate: int = 1
    """Batches whose gradients are added up before a step."""
    optimizer: OptimizerName = "auto"
    """How weights follow gradients: muon learns much faster from random weights, adamw costs less per step; auto is muon for up to 8 million parameters without --init, adamw otherwise."""  # noqa: E501
    lr: float = 1e-3
    """Peak learning rate."""
    lr_batch: int | None = None
    """Images per step that --lr is meant for; --lr is scaled in proportion to the actual number. By default it is used as given."""  # noqa: E501
    weight_decay: float = 0.05
    """Decay of weights towards zero, in proportion to the learning rate."""
    warmup: float = 0.05
    """Share of the run over which the learning rate rises to its peak."""
    schedule: ScheduleName = "poly"
    """How the learning rate falls afterwards; multistep cuts it to a tenth at each of --lr-drops."""
    final_lr: float = 0.0
    """Learning rate at the end of the run, as a share of the peak; multistep ignores it."""
    poly_power: float = 0.9
    """Power of the poly schedule; 1 falls in a straight line."""
    lr_drops: tuple[float, ...] = (8 / 12, 11 / 12)
    """Shares of the run at which the multistep schedule cuts the learning rate; by default after 8 and 11 epochs of 12."""  # noqa: E501
    clip_norm: float = 1.0
    """Maximum gradient norm; 0 disables clipping."""
    ema: float = 0.999
    """Decay of the moving average of the weights, which is what is evaluated and saved; 0 saves the raw weights."""
    drop_path: float = 0.0
    """Stochastic depth rate of the backbone."""
    freeze: tuple[str, ...] = ()
    """Parts that keep the weights of --init: `backbone` for all that a pretrained backbone has, or names such as stem, stages.0 or stages.*.norm1. Their norms keep their statistics."""  # noqa: E501
    precision: Precision = field(default="auto", metadata=RESUMABLE)
    """Number format; auto is bf16-mixed on a CUDA GPU that computes with bfloat16, 16-mixed on other CUDA GPUs, 32-true elsewhere."""  # noqa: E501

    def __post_init__(self) -> None:
        positive(self, "batch_size", "accumulate", "lr", "lr_batch", "poly_power")
        at_least_zero(self, "weight_decay", "clip_norm")
        choice(self, "schedule", SCHEDULES)
        choice(self, "optimizer", OPTIMIZERS)
        choice(self, "precision", get_args(Precision))
        for name in ("warmup", "ema", "drop_path", "final_lr"):
            within(self, name, 0.0, 1.0, upper_open=True)
        if not all(0 < drop < 1 for drop in self.lr_drops):
            given = " ".join(f"{drop:g}" for drop in self.lr_drops)
            raise ConfigError(f"--lr-drops {given}: shares of the run above 0 and below 1, such as 0.67 0.92")

    def scaled_lr(self, images_per_step: int) -> float:
        """The peak learning rate of a run with this many images per step."""
        return self.lr if self.lr_batch is None else self.lr * images_per_step / self.lr_batch


@dataclass(frozen=True)
class Recording:
    """What a run records, and how often."""

    evaluations: int = field(default=10, metadata=RESUMABLE)
    """Evaluations on the validation images, spread evenly over the run; the last one is at its end."""
    evaluation_images: int = field(default=200, metadata=RESUMABLE)
    """Maximum number of validation images, evenly spaced, for all evaluations but the last one, which uses all."""
    patience: int | None = field(default=None, metadata=RESUMABLE)
    """Stop when the validation score has not risen in this number of evaluations during training, and keep the network of the best one. Needs more evaluations than that; the score often rises until the learning rate has fallen."""  # noqa: E501
    checkpoint_every: int | None = field(default=None, metadata=RESUMABLE)
    """Steps between checkpoints; by default one is written about every minute. One is always written at the end."""
    score_raw_weights: bool = False
    """At the end of a run with a moving average (--ema), score the weights without it as well: the key `raw_weights` of the metrics, and the report."""  # noqa: E501
    log_every: int = field(default=10, metadata=RESUMABLE)
    """Steps between the rows of metrics.csv."""
    logger: tuple[LoggerName, ...] = field(default=("tensorboard",), metadata=RESUMABLE)
    """Where losses, scores, learning rate and options go, one or several; all write into the run folder and send nothing. csv is metrics.csv alone, which every run has."""  # noqa: E501

    def __post_init__(self) -> None:
        positive(self, "evaluations", "evaluation_images", "patience", "checkpoint_every", "log_every")
        if unknown := [name for name in self.logger if name not in get_args(LoggerName)]:
            raise ConfigError(f"--logger {unknown[0]!r} is not allowed: of {', '.join(get_args(LoggerName))}")
        if self.patience is not None and self.patience > self.evaluations - 2:
            raise ConfigError(
                f"--patience {self.patience} would never stop a run with --evaluations {self.evaluations}, the last of"
                f" which is at its end: give --evaluations {self.patience + 2} or more"
            )


@dataclass(frozen=True)
class Machine:
    """Where and how fast it runs."""

    device: Literal["auto", "cpu", "cuda", "mps"] = field(default="auto", metadata=RESUMABLE)
    """Type of processor."""
    devices: int = 1
    """Number of processors per machine; each trains on its own batches. torchrun sets its own number instead."""
    num_nodes: int = 1
    """Number of machines that train together."""
    sync_batchnorm: bool = False
    """With several GPUs, compute BatchNorm statistics over the batches of all of them, as the papers' segmentation code does; CPU processes keep their own."""  # noqa: E501
    strategy: str = field(default="auto", metadata=RESUMABLE)
    """How several processors train together: auto, ddp, or another ddp strategy of Lightning Fabric."""
    workers: int | None = field(default=None, metadata=RESUMABLE)
    """Processes that read and augment images; by default half the processors, at most 8. The result does not depend on their number."""  # noqa: E501
    seed: int = 0
    """Seed of everything random. On a CPU two runs with the same seed, steps and threads give the same result, bit for bit; on a GPU up to rounding, since some kernels add in no fixed order."""  # noqa: E501
    checkpoint_activations: bool = field(default=False, metadata=RESUMABLE)
    """Recompute the activations of the backbone's blocks in the backward pass instead of keeping them: less memory, slower steps, the same result up to rounding."""  # noqa: E501
    compile: bool = field(default=False, metadata=RESUMABLE)
    """Compile backbone and heads with torch.compile, at the first step and again for images of other sizes: minutes, which pay in long runs with one --crop-size. Without a C++ compiler the run continues uncompiled."""  # noqa: E501

    def __post_init__(self) -> None:
        choice(self, "device", ("auto", "cpu", "cuda", "mps"))
        positive(self, "devices", "num_nodes")
        at_least_zero(self, "workers", "seed")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The options that all tasks share; only `data` is required."""

    data: Path = field(metadata=RESUMABLE)
    """Folder with the training and validation data."""
    allow_outside: bool = field(default=False, metadata=RESUMABLE)
    """Read images outside of --data where its annotations name them; they can end up in the report."""
    no_verify: bool = field(default=False, metadata=RESUMABLE)
    """Load weights and checkpoints although they differ from the digests written with them."""
    model: str = "cyclemlp_nano"
    """Backbone, by its timm name."""
    out: Path | None = field(default=None, metadata=RESUMABLE)
    """Run folder; new or empty, unless --resume or --overwrite is given. By default runs/TASK, or where that is taken runs/TASK-2, runs/TASK-3 and so on."""  # noqa: E501
    resume: Annotated[bool | Path, Parameter(metavar="[RUN]")] = field(default=False, metadata=RESUMABLE)
    """Continue the run in this folder, or in --out, from its last checkpoint, with its data and options: on a CPU as if it had not stopped, bit for bit, on a GPU up to rounding."""  # noqa: E501
    overwrite: bool = field(default=False, metadata=RESUMABLE)
    """Replace the run in --out, once the data and options of this one have been checked; other files are never deleted."""  # noqa: E501
    init: Path | None = field(default=None, metadata=RESUMABLE)
    """Start from these weights: a backbone checkpoint, a run folder or its model.safetensors, `authors` for the weights that the authors of --model published, or `pretrained` for those that timm has for --model, from the Hugging Face hub or its cache on this machine."""  # noqa: E501
    bands: tuple[int, ...] | None = None
    """Numbers of the bands of each image that are used, from 1, in this order, such as 4 3 2; by default all. Images of 1 or 3 bands become RGB without it."""  # noqa: E501
    value_range: tuple[str, ...] | None = None
    """Values that become black and white, such as 0 4095; `dtype` for all that the type holds, `percentile` for the 0.1 and 99.9 percentiles of the training images, `per-image` for those of each image. By default 8-bit images are taken as they are, and others by what the training images hold."""  # noqa: E501
    validation: Annotated[ValidationOptions, group("Validation", 0)] = field(default_factory=ValidationOptions)
    class_choice: Annotated[ClassChoice, group("Classes", 0)] = field(default_factory=ClassChoice)
    length: Annotated[Length, group("Length", 1)] = field(default_factory=Length)
    optimisation: Annotated[Optimisation, group("Optimisation", 2)] = field(default_factory=Optimisation)
    recording: Annotated[Recording, group("Recording", 5)] = field(default_factory=Recording)
    machine: Annotated[Machine, group("Machine", 6)] = field(default_factory=Machine)

    @property
    def hold_out(self) -> HoldOut | None:
        """What is held out for validation, if anything."""
        return self.validation.with_seed(self.machine.seed)

    @property
    def run_dir(self) -> Path:
        """The run folder, where it is given or chosen already."""
        assert self.out is not None
        return self.out


def optimizer_of(name: OptimizerName, parameters: int, *, starts_from_weights: bool) -> OptimizerName:
    """The optimiser that --optimizer `name` chooses for a network with this number of parameters.

    AdamW leaves more of the weights of --init as they are, and takes less time on a large network's kernels.
    """
    if name != "auto":
        return name
    return "adamw" if starts_from_weights or parameters > MOST_FOR_MUON else "muon"


def resumable_options(config: type[RunConfig]) -> frozenset[str]:
    """Options, by their names on the command line, that may differ between a run and its continuation."""
    return frozenset(
        entry.name.replace("_", "-")
        for part in (config, *_parts(config))
        for base in part.__mro__  # a subclass that gives an option another default need not mark it again
        for entry in getattr(base, "__dataclass_fields__", {}).values()
        if entry.metadata.get("resumable")
    )


def _parts(config: type[RunConfig]) -> Iterator[type]:
    """The groups of options that `config` is composed of."""
    for entry in dataclasses.fields(config):
        factory: object = entry.default_factory
        if isinstance(factory, type) and dataclasses.is_dataclass(factory):
            yield factory


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """How a network looks at each image; for tasks whose results are about places in it."""

    scales: Annotated[tuple[float, ...] | None, Parameter(consume_multiple=True)] = None
    """Segmentation, detection: look at each image at several factors of its usual size, such as 0.75 1 1.5, which is slower and usually better; masks are averaged, of overlapping boxes the top-scoring one is kept. The benchmarks' "multi-scale" of segmentation is 0.5 0.75 1 1.25 1.5 1.75 with --flip."""  # noqa: E501
    flip: bool = False
    """Segmentation, detection: look at each image mirrored left to right as well."""
    window: int | None = None
    """Segmentation, detection: look at each image in windows of this edge, in network pixels; by default only large images."""  # noqa: E501
    overlap: int | None = None
    """Network pixels that windows share; larger objects may be found in pieces."""
    exact: bool = False
    """Segmentation: for large images, compute block after block over the whole image, in temporary files, instead of windows: slower, and the result is that of the image in one piece, up to rounding."""  # noqa: E501
    value_range: Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True)] = None
    """Values of these images that are black and white, such as 0 4095, or per-image; by default as trained."""
    ground_resolution: str | None = None
    """Segmentation, detection: metres per pixel of these images, such as 0.5, where their files do not say it, or `keep`. By default a GeoTIFF says its own, and one of another resolution than the training images is resampled for the network; `keep` leaves that out."""  # noqa: E501


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(ViewOptions):
    """Options of an evaluation that only some tasks have."""

    crop: float | None = None
    """Classification: share of the resized image's edge that is seen, in place of the run's (0.875 is the authors')."""
    image_size: int | None = None
    """Classification: edge of the images in pixels, in place of the run's."""


@dataclass(frozen=True, kw_only=True)
class PredictionOptions(ViewOptions):
    """Options of a prediction that only some tasks have."""

    no_pictures: bool = False
    """Classification and detection: write no images, only the files about all images."""
    objects: bool = False
    """Segmentation, instance segmentation: count and measure objects (area, centroid, box), in objects.csv; those of a mask are its connected pixels of a class other than the background."""  # noqa: E501
    legend: Literal["file", "inside", "none"] | None = None
    """Segmentation: where the names and shares of classes stand: in NAME_legend.png next to the overlay (file), below the image in the overlay (inside), or nowhere (none); by default file, and inside in videos."""  # noqa: E501
    tint_background: bool = False
    """Segmentation: paint a class 0 that is a background (by its name) as well, which is left as it is otherwise."""
    probabilities: bool = False
    """Segmentation of scenes (GeoTIFF): write the probability of each class to NAME_probabilities.tif as well."""
    vector: Literal["geojson", "gpkg"] | None = None
    """Scenes (GeoTIFF): the format of vectors, GeoJSON in longitude and latitude or GeoPackage. Of masks it writes the connected pixels of each class but the background as polygons, NAME_polygons; objects are always written, to NAME_objects.geojson by default."""  # noqa: E501
    simplify: float | None = None
    """Maximum number of pixels by which outlines of --vector may move when simplified; by default they are not."""
    score_threshold: float | None = None
    """Detection: objects with lower scores are left out; by default 0.3, or for outlines what training chose."""
    nms: float | None = None
    """Detection: of two objects of a class whose boxes overlap (IoU) by more than this, the one with the higher score is kept; by default as trained, and for masks no more than that."""  # noqa: E501


def flat(config: RunConfig) -> JsonObject:
    """Every option by its name on the command line, as plain values that YAML can hold."""
    options: JsonObject = {}
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        parts = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else {entry.name: value}  # type: ignore[arg-type]
        options |= {name.replace("_", "-"): _plain(part) for name, part in parts.items()}
    return options


def saved_options(config: RunConfig) -> JsonObject:
    """The options of a run, without those with which its config.yaml as a recipe would act on the wrong run."""
    return {name: value for name, value in flat(config).items() if name not in ("resume", "overwrite")}


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
