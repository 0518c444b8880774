"""To what size an image is brought before a detector sees it; without torch, as exported networks need it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyclemlp.data.sizes import size_factor


@dataclass(frozen=True)
class ResizeRule:
    """COCO's rule, a length for the shorter side unless the longer would pass its limit; then a factor for all."""

    input_scale: float = 1.0
    """Factor on both sides."""
    short_side: int | None = None
    """Length of the shorter side in pixels; None keeps it."""
    long_side: int | None = None
    """Most pixels of the longer side."""

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after resizing, with the proportions kept but for rounding."""
        factor = self.input_scale * size_factor(height, width, self.short_side, self.long_side)
        return max(1, round(height * factor)), max(1, round(width * factor))

    def resized(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The image (H, W, C) at its new size, bilinear and antialiased."""
        height, width = self.size(*pixels.shape[:2])
        if (height, width) == pixels.shape[:2]:
            return pixels
        channels = [
            np.asarray(Image.fromarray(pixels[..., i]).resize((width, height), Image.Resampling.BILINEAR))
            for i in range(pixels.shape[2])
        ]
        return np.stack(channels, axis=-1)
