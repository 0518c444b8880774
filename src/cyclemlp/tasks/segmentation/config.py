"""Options of a segmentation run; light, as `cyclemlp.tasks.options` is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclemlp.errors import ConfigError
from cyclemlp.option_checks import at_least_zero, choice, positive, within
from cyclemlp.tasks.options import RESUMABLE, RunConfig, group


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
    window: int | None = field(default=None, metadata=RESUMABLE)
    """Edge of the sliding window in evaluation and prediction, in network pixels; by default whole images."""
    augmentation: Annotated[Augmentation, group("Augmentation", 3)] = field(default_factory=Augmentation)
    loss: Annotated[Loss, group("Loss", 4)] = field(default_factory=Loss)

    def __post_init__(self) -> None:
        positive(self, "input_scale", "short_side", "long_side")
        if self.head_width is not None and self.head_width < 8:
            raise ConfigError(f"--head-width {self.head_width} is too small: 8 or more")
        if self.window is not None and self.window < 32:
            raise ConfigError(f"--window {self.window} is too small: 32 or more")
