"""How training samples of objects vary; light, as the command line reads it without importing torch."""

from dataclasses import dataclass

from cyclemlp.errors import ConfigError
from cyclemlp.option_checks import within


@dataclass(frozen=True)
class BoxAugmentation:
    """Random changes to training images; validation images are never changed."""

    crop_size: int | None = 384
    """Edge of the training crop in network pixels, `none` for whole images, which then come in batches of similar shapes. Smaller images stay as they are."""  # noqa: E501
    scale: tuple[float, float] = (0.6, 1.5)
    """Smallest and largest factor an image is resized by before it is cut, beside that of --input-scale."""
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
    visible: float = 0.3
    """An object is learnt from where at least this share of its box is left in the crop."""
    object_crops: float = 0.0
    """Share of crops that hold the middle of an object of the image, drawn at random; for images with few far apart."""

    def __post_init__(self) -> None:
        if self.crop_size is not None and self.crop_size < 64:
            raise ConfigError(f"--crop-size {self.crop_size} is too small: 64 or more")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"--scale {self.scale[0]} {self.scale[1]}: two factors above 0, smaller first")
        for name in ("flip", "vertical_flip", "visible", "object_crops"):
            within(self, name, 0.0, 1.0)
        for name in ("brightness", "contrast", "saturation"):
            within(self, name, 0.0, 1.0, upper_open=True)
        within(self, "hue", 0.0, 0.5)
