"""From the raw output of a classifier to a label; without torch, for exported files."""

import numpy as np
import numpy.typing as npt

from cyclemlp.data.resizing import central_crop
from cyclemlp.inference.runtimes.network import Network
from cyclemlp.inference.views import Views
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.classification.result import ClassificationResult


def classify(
    network: Network,
    card: ModelCard,
    pixels: npt.NDArray[np.uint8],
    views: Views,  # noqa: ARG001  judged by one
    progress: bool,  # noqa: ARG001  one image is quick
) -> ClassificationResult:
    """The class of an image (H, W, 3), judged by its middle as the card says."""
    assert card.image_size is not None  # the card checks that a classifier
    assert card.crop_pct is not None  # has both
    mean, std = (np.array(numbers, dtype=np.float32) * 255 for numbers in (card.mean, card.std))
    seen = (central_crop(pixels, card.image_size, card.crop_pct) - mean) / std
    (logits,) = network(np.ascontiguousarray(seen.transpose(2, 0, 1))[None])
    return ClassificationResult(_softmax(logits[0]), card.classes, pixels)


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    shares: npt.NDArray[np.float64] = powers / powers.sum()
    return shares
