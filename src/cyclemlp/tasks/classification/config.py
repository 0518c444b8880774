"""What a classification run is made of; light, as `config.py` is.

The defaults suit small data sets on a small machine. Recipes for ImageNet are in `recipes/imagenet`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclemlp.data.resizing import SQUARE_RULES, SquareRule
from cyclemlp.errors import ConfigError
from cyclemlp.files import JsonObject
from cyclemlp.option_checks import at_least, at_least_zero, choice, positive, within
from cyclemlp.tasks.options import RESUMABLE, Optimisation, RunConfig, ScheduleName, group


@dataclass(frozen=True)
class ClassificationOptimisation(Optimisation):
    """How weights follow gradients; norms and biases are not decayed."""

    batch_size: int = 32
    """Images per batch and device."""
    schedule: ScheduleName = "cosine"
    """How the learning rate falls afterwards."""
    layer_decay: float = 1.0
    """The learning rate of each layer as a share of the next one's, for fine-tuning; 1 for all alike."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "layer_decay")
        within(self, "layer_decay", 0.0, 1.0)


@dataclass(frozen=True)
class LabelAugmentation:
    """Random changes to training images; validation images are never changed."""

    scale: tuple[float, float] = (0.35, 1.0)
    """Smallest and largest share of an image's area that a crop takes; ImageNet recipes use 0.08 1."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    vertical_flip: float = 0.0
    """Probability of an upside-down flip."""
    rotate90: float | None = None
    """Probability of a turn by 90, 180 or 270 degrees. By default 0.75, by which each direction is as frequent, where all training images are scenes or of microscopes, by what their TIFF files say, and 0 otherwise."""  # noqa: E501
    colour_jitter: float = 0.2
    """Largest relative change of brightness, contrast and saturation; not used with --auto-augment."""
    auto_augment: str | None = None
    """Policy by timm's name, such as rand-m9-mstd0.5-inc1 (the authors' RandAugment)."""
    erasing: float = 0.0
    """Probability that a rectangle of the image is replaced by noise."""
    mixup: float = 0.0
    """Strength (alpha) of Mixup, which blends pairs of images and their labels; 0 for none."""
    cutmix: float = 0.0
    """Strength (alpha) of CutMix, which pastes a part of one image into another; with both, each batch draws one."""
    repeated: int = 1
    """How often a pass takes each image it meets, changed differently: repeated augmentation; the authors' is 3."""

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ConfigError(f"--scale {self.scale[0]} {self.scale[1]}: two shares above 0 to 1, smaller first")
        for name in ("flip", "vertical_flip", "erasing"):
            within(self, name, 0.0, 1.0)
        if self.rotate90 is not None:
            within(self, "rotate90", 0.0, 1.0)
        at_least_zero(self, "colour_jitter", "mixup", "cutmix")
        positive(self, "repeated")


@dataclass(frozen=True)
class LabelLoss:
    """What is minimised: cross entropy, and optionally the distance from a teacher."""

    label_smoothing: float = 0.1
    """Share of each label that is spread over all classes."""
    teacher: str | None = None
    """A trained network to learn from: a run folder or its model.safetensors, or a timm name whose weights timm fetches."""  # noqa: E501
    teacher_weight: float = 0.5
    """Share of the loss that is the distance from the teacher, the rest is cross entropy."""
    temperature: float = 3.0
    """How much the class probabilities of teacher and student are softened before they are compared."""

    def __post_init__(self) -> None:
        within(self, "label_smoothing", 0.0, 1.0, upper_open=True)
        within(self, "teacher_weight", 0.0, 1.0)
        positive(self, "temperature")


@dataclass(frozen=True)
class Architecture:
    """Changes to the network, for ablations; of cyclemlp_* only."""

    stepsize: int | None = None
    """Length of the staircases along both axes, odd; by default 3."""
    branches: tuple[str, ...] = ()
    """Token-mixing branches as pseudo-kernels HxW, by default 1x3 3x1 1x1; not for cyclemlp_tiny, small and base."""

    def __post_init__(self) -> None:
        positive(self, "stepsize")
        if self.stepsize is not None and self.stepsize % 2 == 0:
            raise ConfigError(f"--stepsize {self.stepsize} is not allowed: an odd number, so that steps have a middle")
        if self.stepsize is not None and self.branches:
            raise ConfigError("--stepsize and --branches were both given: branches such as 1x5 5x1 1x1 say both")

    @property
    def options(self) -> JsonObject:
        """What differs from the model's own, by the names of its arguments."""
        stepsize = {} if self.stepsize is None else {"stepsize": self.stepsize}
        return stepsize | ({"branches": list(self.branches)} if self.branches else {})


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(RunConfig):
    """A whole classification run; only `data` has to be given."""

    data: Path
    """Folder with train/CLASS/*.jpg and val/CLASS/*.jpg, or of class folders alone: then a fifth of them validates."""
    image_size: int | None = None
    """Edge of the images in pixels; by default near the images' own size, a multiple of 32 from 64 to 224."""
    crop: float = field(default=0.875, metadata=RESUMABLE)
    """Share of the resized image's edge that is evaluated (224 of 256 pixels, say); of --resize crop only."""
    resize: SquareRule = "crop"
    """How images become square, everywhere alike: crop takes their middle, pad and squash keep all of long images."""
    architecture: Annotated[Architecture, group("Architecture", 4)] = field(default_factory=Architecture)
    optimisation: Annotated[ClassificationOptimisation, group("Optimisation", 2)] = field(
        default_factory=ClassificationOptimisation
    )
    augmentation: Annotated[LabelAugmentation, group("Augmentation", 3)] = field(default_factory=LabelAugmentation)
    loss: Annotated[LabelLoss, group("Loss", 4)] = field(default_factory=LabelLoss)

    def __post_init__(self) -> None:
        at_least(self, "image_size", 32)
        choice(self, "resize", SQUARE_RULES)
        positive(self, "crop")
        within(self, "crop", 0.0, 1.0)
        if self.overwrite and self.out is not None and _is_inside(self.loss.teacher, self.out):
            raise ConfigError(
                f"--teacher {self.loss.teacher} is the run that --overwrite replaces, and --resume would need it:"
                " choose another --out"
            )
        mixes = self.augmentation.mixup or self.augmentation.cutmix
        if mixes and self.optimisation.batch_size % 2:
            raise ConfigError(
                f"--batch-size {self.optimisation.batch_size}: --mixup and --cutmix pair the images of a batch; give"
                " an even number"
            )


def _is_inside(name: str | None, folder: Path) -> bool:
    return name is not None and Path(name).resolve().is_relative_to(folder.resolve())
