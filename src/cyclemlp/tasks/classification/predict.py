"""From the raw output of a classifier to a label; numpy alone, so exported files need no torch."""

import numpy as np
import numpy.typing as npt

from cyclemlp.data.resizing import central_crop
from cyclemlp.tasks.base import NetworkImage
from cyclemlp.tasks.classification.result import ClassificationResult


def classify(image: NetworkImage) -> ClassificationResult:
    """The class of an image, judged by its central crop as the card says."""
    card = image.card
    assert card.image_size is not None  # the card checks that a classifier
    assert card.crop_pct is not None  # has both
    mean, std = (np.array(numbers, dtype=np.float32) * 255 for numbers in (card.mean, card.std))
    seen = (central_crop(image.pixels, card.image_size, card.crop_pct) - mean) / std
    (logits,) = image.run(np.ascontiguousarray(seen.transpose(2, 0, 1))[None])
    return ClassificationResult(_softmax(logits[0]), card.classes, image.pixels)


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    shares: npt.NDArray[np.float64] = powers / powers.sum()
    return shares
