"""How training samples vary; light, because the command line reads it without importing torch."""

from dataclasses import dataclass
from typing import Literal

from cyclemlp.errors import ConfigError
from cyclemlp.option_checks import choice, positive, within


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Random changes to training images that do not depend on what is learnt from them."""

    flip: float = 0.5
    """Probability of a left-right flip."""
    vertical_flip: float = 0.0
    """Probability of an upside-down flip."""
    rotate90: float | None = None
    """Probability of a turn by 90, 180 or 270 degrees. By default 0.75, by which each direction is as frequent, where all training images are scenes or of microscopes, by what their TIFF files say, and 0 otherwise."""  # noqa: E501
    brightness: float = 0.2
    """Largest relative change of brightness."""
    contrast: float = 0.2
    """Largest relative change of contrast."""
    saturation: float = 0.2
    """Largest relative change of saturation."""
    hue: float = 0.0
    """Largest shift of hue, as a share of the colour circle; slow on a CPU."""

    def __post_init__(self) -> None:
        for name in ("flip", "vertical_flip"):
            within(self, name, 0.0, 1.0)
        if self.rotate90 is not None:
            within(self, "rotate90", 0.0, 1.0)
        for name in ("brightness", "contrast", "saturation"):
            within(self, name, 0.0, 1.0, upper_open=True)
        within(self, "hue", 0.0, 0.5)


@dataclass(frozen=True)
class MaskAugmentation(Changes):
    """Random changes to training images; validation images are never changed."""

    crop_size: int = 256
    """Edge of the square training crop, in pixels."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest factor a crop is resized by."""
    scale_draw: Literal["log-uniform", "uniform"] = "log-uniform"
    """How the factor is drawn between them: as often halved as doubled, or evenly as the papers do."""
    colour_probability: float = 1.0
    """Probability of each change of brightness, contrast, saturation and hue."""
    rare_class_crops: float = 0.25
    """Share of crops that hold a pixel of a class drawn from those in the image, rare classes more often."""
    largest_class: float = 1.0
    """Crops in which one class has this share or more of the labelled pixels are drawn again, up to 10 times; 1 takes all."""  # noqa: E501

    def __post_init__(self) -> None:
        if self.crop_size < 32:
            raise ConfigError(f"--crop-size {self.crop_size} is too small: 32 or more")
        for name in ("rare_class_crops", "colour_probability", "largest_class"):
            within(self, name, 0.0, 1.0)
        positive(self, "largest_class")
        choice(self, "scale_draw", ("log-uniform", "uniform"))
        _check_scale(*self.scale)
        super().__post_init__()


@dataclass(frozen=True)
class BoxAugmentation(Changes):
    """Random changes to training images; validation images are never changed."""

    crop_size: int | Literal["auto"] | None = "auto"
    """Edge of the training crop in network pixels, `none` for whole images, which then come in batches of similar shapes. Smaller images stay as they are. `auto` is twice the width of the large objects, but from 256 to 384."""  # noqa: E501
    scale: tuple[float, float] = (0.6, 1.5)
    """Smallest and largest factor an image is resized by before it is cut, in addition to that of --input-scale."""
    visible: float = 0.3
    """An object is learnt if at least this share of its box is left in the crop."""
    object_crops: float = 0.0
    """Share of crops that hold the middle of an object of the image, drawn at random; for images with few far apart."""

    def __post_init__(self) -> None:
        if isinstance(self.crop_size, int) and self.crop_size < 64:
            raise ConfigError(f"--crop-size {self.crop_size} is too small: 64 or more")
        for name in ("visible", "object_crops"):
            within(self, name, 0.0, 1.0)
        _check_scale(*self.scale)
        super().__post_init__()

    @property
    def crop_edge(self) -> int | None:
        """`crop_size` of a run that has chosen it."""
        assert not isinstance(self.crop_size, str)
        return self.crop_size


def _check_scale(smallest: float, largest: float) -> None:
    if not 0 < smallest <= largest:
        raise ConfigError(f"--scale {smallest} {largest}: two factors above 0, smaller first")
