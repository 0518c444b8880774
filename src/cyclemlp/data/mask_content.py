"""What a mask file holds before anything says what it means: values, and the colours and marks that go with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyclemlp.data.image_errors import ImageError
from cyclemlp.data.images import Pixels
from cyclemlp.data.palettes import Colour


@dataclass(frozen=True, eq=False)
class MaskContent:
    """The pixels of a mask file."""

    values: npt.NDArray[Any]
    """(height, width), or (height, width, bands) without transparency."""
    table: Mapping[int, Colour] | None = None
    """The colour of each number, if the file has a palette."""
    transparent: tuple[int, ...] = ()
    """Numbers that the file marks as transparent."""
    opaque: npt.NDArray[np.bool_] | None = None
    """Where pixels are opaque; None where nothing marks any as transparent."""
    nodata: npt.NDArray[np.bool_] | None = None
    """Where the file marks pixels as no measurement; None where it marks none."""

    def rgb(self, path: Path) -> Pixels:
        """The colours (height, width, 3). Raises ImageError for values that are none, and for transparent pixels."""
        self.check_opaque(path)
        values = self.values
        if values.dtype != np.uint8:
            what = f"has values of type {values.dtype.name}, but the colours of its classes have 8 bits"
            raise ImageError(path, what, "save it with 8 bits; for class numbers, list the classes without colours")
        if self.table is not None and values.ndim == 2:
            lookup = np.zeros((256, 3), np.uint8)
            for number, colour in self.table.items():
                lookup[number] = colour
            return lookup[values]
        if values.ndim == 2 or values.shape[2] == 1:
            return np.repeat(values.reshape(*values.shape[:2], 1), 3, axis=2)
        if values.shape[2] != 3:
            raise ImageError(path, f"has {values.shape[2]} bands, but colours have 3", "save it as RGB")
        return values

    def check_opaque(self, path: Path) -> None:
        """Raise ImageError for a pixel that is transparent or partly so: whoever made it so may have meant anything."""
        hidden = 0 if self.opaque is None else int((~self.opaque).sum())
        if hidden:
            what = f"has {hidden} pixels that are transparent or partly so, which is no class"
            raise ImageError(
                path, what, "draw them opaque, in their class or as ignored, and save without transparency"
            )
