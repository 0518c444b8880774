"""From the raw output of a segmentation network to the class of every pixel."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from cyclemlp.tasks.base import FloatArray, NetworkImage
from cyclemlp.tasks.segmentation.result import SegmentationResult


def segment(image: NetworkImage) -> SegmentationResult:
    """The class of every pixel; over several views by their mean probabilities."""
    classes = most_probable_classes(image.maps(softmax))
    return SegmentationResult(classes[0], image.card.classes, image.pixels)


def most_probable_classes(strips: Iterable[FloatArray]) -> npt.NDArray[np.uint8]:
    """The most probable class of every pixel, (N, H, W), from strips (N, K, rows, W) of logits or probabilities."""
    return np.concatenate(list(map(_most_probable, strips)), axis=1)  # map keeps no strip alive


def _most_probable(logits: FloatArray) -> npt.NDArray[np.uint8]:
    """Class by class over whole maps: numpy's argmax along the second axis is several times slower."""
    best = logits[:, 0].copy()
    classes = np.zeros(best.shape, dtype=np.uint8)
    for index in range(1, logits.shape[1]):
        better = logits[:, index] > best
        np.copyto(best, logits[:, index], where=better)
        classes[better] = index
    return classes


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities over the classes (N, K, rows, W), in place."""
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits
