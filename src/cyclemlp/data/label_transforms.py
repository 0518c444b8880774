"""From a decoded image to the input of a classifier, in training and in evaluation.

Training uses timm's transforms, which are those of the authors' recipe. They draw from Python's and numpy's random
generators, so both are seeded from torch's for every sample. The loader seeds that one, so a sample is the same in any
worker.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from cyclemlp.data.images import Pixels
from cyclemlp.data.resizing import central_crop
from cyclemlp.data.transforms import Normalisation, normalise


class LabelTrainTransform:
    """A random training sample of an image, uint8 (H, W, 3): float32 (3, size, size), normalised."""

    def __init__(
        self,
        size: int,
        *,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        vertical_flip: float = 0.0,
        colour_jitter: float = 0.0,
        auto_augment: str | None = None,
        erasing: float = 0.0,
        normalisation: Normalisation | None = None,
    ) -> None:
        normalisation = normalisation or Normalisation()
        self._transform: Callable[[Image.Image], Tensor] = create_transform(
            size,
            is_training=True,
            scale=scale,
            ratio=ratio,
            hflip=flip,
            vflip=vertical_flip,
            color_jitter=colour_jitter or None,
            auto_augment=auto_augment,
            interpolation="bicubic",
            re_prob=erasing,
            re_mode="pixel",
            mean=normalisation.mean,
            std=normalisation.std,
        )

    def __call__(self, image: Pixels) -> Tensor:
        with seeded_by_torch():
            return self._transform(Image.fromarray(image))


class LabelTestTransform:
    """The middle of an image, uint8 (H, W, 3), as in evaluation: float32 (3, size, size), normalised."""

    def __init__(self, size: int, crop_pct: float, normalisation: Normalisation | None = None) -> None:
        self._size = size
        self._crop_pct = crop_pct
        self._normalisation = normalisation or Normalisation()

    def __call__(self, image: Pixels) -> Tensor:
        return normalise(central_crop(image, self._size, self._crop_pct), self._normalisation)


@contextmanager
def seeded_by_torch() -> Iterator[None]:
    """Within the block Python's and numpy's generators follow from torch's; afterwards they are as before."""
    seed = int(torch.randint(2**32, (), dtype=torch.int64))
    before = random.getstate(), np.random.get_state()  # noqa: NPY002  what timm draws from
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
