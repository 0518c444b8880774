"""The value of every pixel: from the network's output, and how far it is from the labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from cyclemlp.files import JsonObject
from cyclemlp.tasks.looks import FloatArray, NetworkImage, Pixels


@dataclass(frozen=True, eq=False)
class RegressionResult:
    """The value of every pixel of an image."""

    values: FloatArray
    """(H, W), from 0 to 1."""
    image: Pixels

    def draw(self) -> Image.Image:
        """The values as a grey image."""
        return Image.fromarray((self.values * 255).round().astype(np.uint8))

    def to_dict(self) -> JsonObject:
        height, width = self.values.shape
        size = {"height": height, "width": width}
        return {"task": "pixel-regression", "size": size, "mean": float(self.values.mean())}


def regress(image: NetworkImage) -> RegressionResult:
    """Values from 0 to 1; over several views their mean."""
    strips = list(image.maps(lambda values: values))
    return RegressionResult(np.concatenate(strips, axis=2)[0, 0].clip(0, 1), image.pixels)


class Distances:
    """Sums from which the mean absolute distance follows."""

    def __init__(self) -> None:
        self.total, self.pixels = 0.0, 0

    def merge(self, other: "Distances") -> None:
        self.total += other.total
        self.pixels += other.pixels

    def metrics(self, classes: Sequence[str]) -> Mapping[str, Any]:
        closeness = 1 - self.total / self.pixels if self.pixels else None
        return {"closeness": closeness, "closeness_of": dict.fromkeys(classes, closeness)}
