"""From the raw output of a segmentation network to the class of every pixel."""

import numpy as np
import numpy.typing as npt

from cyclemlp.data.sizes import size_factor
from cyclemlp.inference.networks import Network
from cyclemlp.inference.resampling import FloatArray
from cyclemlp.inference.results import SegmentationResult
from cyclemlp.inference.tiling import DenseNetwork, Tiling, predict_classes
from cyclemlp.tasks.card import ModelCard

# Larger images go through windows even where the card asks for whole ones: 8 million network pixels need
# gigabytes of memory, and the need grows with the image.
MAX_WHOLE_PIXELS = 2**23
LARGE_IMAGE_WINDOW = 1024


def segment(network: Network, card: ModelCard, pixels: npt.NDArray[np.uint8], progress: bool) -> SegmentationResult:
    """The class of every pixel of an image (H, W, C)."""
    images = np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
    tiling = choose_tiling(card, *pixels.shape[:2])
    classes = predict_classes(_on_pixel_values(network, card), images, tiling, progress=progress)
    return SegmentationResult(classes[0], card.classes, pixels)


def choose_tiling(card: ModelCard, height: int, width: int) -> Tiling:
    """How an image of this size is cut for the network of `card`."""
    window = card.window
    scale = card.input_scale * size_factor(height, width, card.short_side, card.long_side)
    if window is None and height * width * scale**2 > MAX_WHOLE_PIXELS:
        window = LARGE_IMAGE_WINDOW
    return Tiling(window, input_scale=scale)


def _on_pixel_values(network: Network, card: ModelCard) -> DenseNetwork:
    """The network on values 0 to 255 of any size: normalised, and filled up to a size it takes."""
    mean, std = (np.array(numbers, dtype=np.float32).reshape(-1, 1, 1) * 255 for numbers in (card.mean, card.std))

    def logits(windows: FloatArray) -> FloatArray:
        height, width = windows.shape[-2:]
        down, right = (network.size_rule.padded(edge) - edge for edge in (height, width))
        images = (windows - mean) / std
        if down or right:
            images = np.pad(images, ((0, 0), (0, 0), (0, down), (0, right)))
        (given,) = network(images)
        return given[..., :height, :width]

    return logits
