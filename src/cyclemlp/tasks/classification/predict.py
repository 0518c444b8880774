"""From the raw output of a classifier to a label, and what can be done with it; numpy alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cyclemlp.data.drawing import as_rgb, legend_name
from cyclemlp.data.lettering import Lettering
from cyclemlp.data.resizing import MIN_SHARE_IN_CROP, fitted, share_in_crop
from cyclemlp.errors import DataError
from cyclemlp.files import JsonObject
from cyclemlp.tasks.looks import NetworkImage

TOP = 5
_BAR = (0, 114, 178)
_INK = (30, 30, 30)


@dataclass(frozen=True, eq=False)
class ClassificationResult:
    """The probability of each class for an image."""

    probabilities: npt.NDArray[np.float64]
    """(K,) adding up to 1."""
    classes: tuple[str, ...]
    """Name of each class."""
    image: npt.NDArray[np.uint8]
    """(H, W, C) the image itself, which `draw` shows."""
    share_seen: float = 1.0
    """Share of the image's area that the network saw."""

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[int(self.probabilities.argmax())]

    def top(self, limit: int = TOP) -> dict[str, float]:
        """The most probable classes and their probabilities, in descending order."""
        return {self.classes[index]: float(self.probabilities[index]) for index in self._order(limit)}

    def _order(self, limit: int) -> list[int]:
        return [int(index) for index in np.argsort(-self.probabilities, kind="stable")[:limit]]

    def to_dict(self) -> JsonObject:
        """Task, size, label and the five most probable classes as JSON values; `seen` where a crop lost over half."""
        height, width = self.image.shape[:2]
        size = {"height": height, "width": width}
        seen = {"seen": round(self.share_seen, 4)} if self.share_seen < MIN_SHARE_IN_CROP else {}
        return {"task": "classification", "size": size, "label": self.label, "top5": self.top(), **seen}

    def draw(self) -> Image.Image:
        """The image above its five most probable classes, with a bar for each."""
        image, order = as_rgb(self.image), self._order(TOP)
        size = min(64, max(12, min(image.size) // 24))
        lettering = Lettering(size)
        shares = [float(self.probabilities[index]) for index in order]
        names = [f"{legend_name(self.classes, i)}  {100 * share:.1f} %" for i, share in zip(order, shares, strict=True)]
        width = max(image.width, round(max(map(lettering.length, names))) + 6 * size)
        canvas = Image.new("RGB", (width, image.height + (2 * len(names) + 1) * size), "white")
        canvas.paste(image, ((width - image.width) // 2, 0))
        pen = ImageDraw.Draw(canvas)
        for row, (text, share) in enumerate(zip(names, shares, strict=True)):
            top = image.height + (2 * row + 1) * size
            pen.rectangle((size // 2, top, size // 2 + round(4 * size * share), top + size), fill=_BAR)
            lettering.write(pen, (5 * size, top + size / 2), text, _INK)
        return canvas


def classify(image: NetworkImage) -> ClassificationResult:
    """The class of an image, made square as the card says."""
    card = image.card
    if image.valid is not None and not image.valid.any():
        raise DataError("no pixel is measured: all are nodata or transparent")
    assert card.image_size is not None  # the card checks that a classifier
    assert card.crop_pct is not None  # has both
    seen = fitted(image.pixels, card.image_size, card.resize, card.crop_pct, card.mean)
    (logits,) = image.run(np.ascontiguousarray(card.normalised(seen.transpose(2, 0, 1)))[None])
    height, width = image.pixels.shape[:2]
    share = share_in_crop(height, width, card.image_size, card.crop_pct) if card.resize == "crop" else 1.0
    return ClassificationResult(_softmax(logits[0]), card.classes, image.pixels, share)


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return powers / powers.sum()
