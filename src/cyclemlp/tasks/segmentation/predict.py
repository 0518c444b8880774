"""From the raw output of a segmentation network to the class of every pixel."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cyclemlp.data.resampling import FloatArray
from cyclemlp.data.resizing import size_factor
from cyclemlp.inference.averaging import mean_probabilities
from cyclemlp.inference.runtimes.network import Network
from cyclemlp.inference.tiling import OVERLAP, DenseNetwork, Tiling, logit_strips, most_likely_classes, predict_classes
from cyclemlp.inference.views import View, Views
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.segmentation.result import SegmentationResult

# Larger images go through windows even where the card asks for whole ones: 8 million network pixels need
# gigabytes of memory, and the need grows with the image.
MAX_WHOLE_PIXELS = 2**23
LARGE_IMAGE_WINDOW = 1024


def segment(
    network: Network, card: ModelCard, pixels: npt.NDArray[np.uint8], views: Views, progress: bool
) -> SegmentationResult:
    """The class of every pixel of an image (H, W, C); over several views by their mean probabilities."""
    images = np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
    on_values = _on_pixel_values(network, card)
    if views.plain:
        classes = predict_classes(on_values, images, choose_tiling(card, *pixels.shape[:2]), progress=progress)
    else:
        smallest_first = sorted(views)  # whose strips are the highest, so that the others hold little back
        strips = [
            _view_strips(on_values, card, images, view, progress=progress and view is smallest_first[0])
            for view in smallest_first
        ]
        classes = most_likely_classes(mean_probabilities(strips))
    return SegmentationResult(classes[0], card.classes, pixels)


def choose_tiling(card: ModelCard, height: int, width: int, scale: float = 1.0) -> Tiling:
    """How an image of this size is cut for the network of `card`, where it is seen at `scale` times its usual size."""
    window = card.window
    usual = card.input_scale * size_factor(height, width, card.short_side, card.long_side)
    # Seen smaller, an image is whole only where it is usually, since the result has its own size.
    if window is None and height * width * (usual * max(1.0, scale)) ** 2 > MAX_WHOLE_PIXELS:
        window = LARGE_IMAGE_WINDOW
    return Tiling(window, OVERLAP if card.overlap is None else card.overlap, usual * scale)


def _view_strips(
    network: DenseNetwork, card: ModelCard, images: npt.NDArray[np.uint8], view: View, *, progress: bool
) -> Iterator[FloatArray]:
    """The logits of one view of images (1, C, H, W), turned back to the way they are."""
    height, width = images.shape[-2:]
    tiling = choose_tiling(card, height, width, view.scale)
    seen = images[..., ::-1] if view.flipped else images
    strips = logit_strips(network, seen, tiling, progress=progress)
    return map(_mirrored, strips) if view.flipped else strips


def _mirrored(strip: FloatArray) -> FloatArray:
    mirrored: FloatArray = strip[..., ::-1]
    return mirrored


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
