"""Training samples of images whose bands are not red, green and blue, for which timm has no transforms."""

from typing import cast

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from cyclemlp.data.images import Pixels
from cyclemlp.data.resizing import SquareRule, fitted
from cyclemlp.data.transforms import Normalisation, drawn_turns, uniform
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.classification.config import LabelAugmentation


class BandsTrainTransform:
    """A random sample of an image, uint8 (H, W, C): float32 (C, size, size), normalised, and its class number.

    Crops, flips, turns and erasing are those of photographs; of the changes of colour only brightness applies. Raises
    ConfigError for --auto-augment, whose changes are made for RGB.
    """

    def __init__(self, size: int, options: LabelAugmentation, card: ModelCard, resize: SquareRule = "crop") -> None:
        if options.auto_augment:
            raise ConfigError(
                f"--auto-augment {options.auto_augment} is for RGB images, and these have {card.in_chans} bands:"
                " leave it out"
            )
        self._rotate90 = options.rotate90
        self._size, self._resize, self._mean = size, resize, card.mean
        self._brightness = min(options.colour_jitter, 1.0)
        self._normalisation = Normalisation(card.mean, card.std)
        crop = v2.RandomResizedCrop(size, options.scale, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
        self._place = v2.Compose(
            [crop, v2.RandomHorizontalFlip(options.flip), v2.RandomVerticalFlip(options.vertical_flip)]
        )
        self._erase = v2.RandomErasing(options.erasing)

    def __call__(self, image: Pixels, label: int) -> tuple[Tensor, Tensor]:
        image = np.ascontiguousarray(np.rot90(image, drawn_turns(self._rotate90)))
        if self._resize != "crop":
            image = fitted(image, min(max(image.shape[:2]), 2 * self._size), self._resize, 1.0, self._mean)
        part = self._place(torch.from_numpy(image).permute(2, 0, 1).contiguous())
        numbers = part.to(torch.float32) / 255
        if self._brightness:
            numbers = (numbers * uniform(1 - self._brightness, 1 + self._brightness)).clamp(0, 1)
        return cast("Tensor", self._erase(self._normalisation(numbers))), torch.tensor(label)
