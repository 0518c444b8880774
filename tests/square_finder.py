"""A network that knows the answer: it finds bright rectangles on black and gives their boxes and shapes."""

import numpy as np
import numpy.typing as npt

from cyclemlp.data.resizing import FloatArray
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.heads.network import SizeRule
from cyclemlp.tasks.card import ModelCard

Image = npt.NDArray[np.uint8]


def card(window: int | None = None, input_scale: float = 1.0, nms: float = 0.5) -> ModelCard:
    return ModelCard(
        task="instance-segmentation",
        model="cyclemlp_nano",
        head="mask-rcnn",
        classes=("grey", "white"),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        input_scale=input_scale,
        window=window,
        detection=DetectionHead(nms=nms, detections=1000),
    )


class SquareFinder:
    """Boxes around what is brighter than its surroundings, in the manner of Mask R-CNN; the brighter the likelier."""

    size_rule = SizeRule(1)

    def __init__(self) -> None:
        self.largest = 0

    def __call__(self, images: FloatArray) -> tuple[FloatArray, ...]:
        self.largest = max(self.largest, images.shape[2] * images.shape[3])
        bright = images[0].max(0)
        boxes = np.array(list(_components(bright > 0.25)), dtype=np.float32).reshape(-1, 4)
        middles = ((boxes[:, :2] + boxes[:, 2:]) / 2).astype(int)
        scores = bright[middles[:, 1], middles[:, 0]]
        order = np.argsort(-scores, kind="stable")
        labels = (scores > 0.75).astype(np.float32)
        return boxes[order], scores[order], labels[order], np.stack([_half()] * len(order)) if len(order) else _none()


def _half() -> FloatArray:
    """The left half of a box, so that a mirrored mask is another."""
    shape = np.zeros((28, 28), dtype=np.float32)
    shape[:, :14] = 1
    return shape


def _none() -> FloatArray:
    return np.zeros((0, 28, 28), dtype=np.float32)


def _components(bright: npt.NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Boxes of separate rectangles, each found by its upper left corner."""
    padded = np.pad(bright, 1)
    corners = padded[1:-1, 1:-1] & ~padded[:-2, 1:-1] & ~padded[1:-1, :-2]
    boxes = []
    for y, x in np.argwhere(corners):
        right, bottom = x + int(padded[y + 1, x + 1 :].argmin()), y + int(padded[y + 1 :, x + 1].argmin())
        boxes.append((int(x), int(y), right, bottom))
    return boxes


def drawn_squares(height: int, width: int, most: int = 20, seed: int = 0) -> Image:
    """Rectangles from 3 pixels on, black around them, some at the image's border; no two are equally bright."""
    random = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), dtype=np.uint8)
    white_and_grey = [*range(70, 150), *range(205, 256)]
    for _ in range(200):
        tall, wide = (int(edge) for edge in random.integers(3, most + 1, 2))
        y, x = int(random.integers(0, height - tall + 1)), int(random.integers(0, width - wide + 1))
        if white_and_grey and not image[max(0, y - 2) : y + tall + 2, max(0, x - 2) : x + wide + 2].any():
            image[y : y + tall, x : x + wide] = white_and_grey.pop()
    return image
