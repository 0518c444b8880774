"""The part of a picture that a classifier sees in evaluation; without torch, as exported networks need it."""

import numpy as np
import numpy.typing as npt
from PIL import Image


def central_crop(image: npt.NDArray[np.uint8], size: int, crop_pct: float) -> npt.NDArray[np.uint8]:
    """The middle `size` x `size` pixels of an image (H, W, 3) whose shorter side is brought to size / crop_pct.

    As in the authors' evaluation (their datasets.py): bicubic, and 256 pixels for 224 at crop_pct 0.875.
    """
    height, width = image.shape[:2]
    shorter = max(size, int(size / crop_pct))
    new_width, new_height = (
        (shorter, max(shorter, int(shorter * height / width)))
        if width <= height
        else (max(shorter, int(shorter * width / height)), shorter)
    )
    resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BICUBIC)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    return np.array(resized.crop((left, top, left + size, top + size)))
