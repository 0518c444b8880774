"""What every network looks like to the code around it, in whatever runtime: arrays in, arrays out. Without torch."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

STRIDE = 32
"""Pixels per position of a backbone's last map."""


@dataclass(frozen=True)
class SizeRule:
    """Heights and widths that a network takes; other images are padded with zeros at the right and the bottom."""

    least: int = STRIDE
    """The smallest edge, in pixels."""
    multiple: int = 1
    """Edges must be multiples of it."""

    def padded(self, edge: int) -> int:
        """The smallest allowed edge that is not below `edge`."""
        return max(self.least, -(-edge // self.multiple) * self.multiple)


class Network(Protocol):
    """A network in some runtime. Threads may share one."""

    @property
    def size_rule(self) -> SizeRule:
        """The sizes it takes."""
        ...

    def __call__(self, images: FloatArray) -> tuple[FloatArray, ...]:
        """Its raw outputs for normalised images (N, C, H, W) of an allowed size."""
        ...
