"""What the drawings of all tasks share."""

import numpy as np
import numpy.typing as npt
from PIL import Image


def as_rgb(image: npt.NDArray[np.uint8]) -> Image.Image:
    """The first three channels, or the first one as grey."""
    channels = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    return Image.fromarray(np.ascontiguousarray(channels))
