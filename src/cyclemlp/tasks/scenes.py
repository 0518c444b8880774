"""What a task makes of a scene: a raster that lies somewhere on the Earth, or is larger than memory."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cyclemlp.files import JsonObject
from cyclemlp.tasks.looks import FloatArray, Look, Pixels
from cyclemlp.tasks.options import PredictionOptions

if TYPE_CHECKING:
    from cyclemlp.data.scenes import Place
    from cyclemlp.tasks.card import ModelCard

Strip = Mapping[str, npt.NDArray[Any]]
"""What is kept of some rows of a scene, by name; of maps each array ends with (rows, width)."""


class SceneOutput(ABC):
    """The files of a scene, made from what is kept of it strip by strip: `MapOutput` or `ObjectOutput`."""

    @abstractmethod
    def files(self, options: PredictionOptions) -> Mapping[str, str]:
        """The suffix of each file by its kind. Raises ConfigError for options that scenes do not have."""

    @abstractmethod
    def write(
        self,
        strips: Iterable[Strip],
        place: "Place",
        card: "ModelCard",
        files: Mapping[str, Path],
        options: PredictionOptions,
    ) -> JsonObject:
        """Write the files from all strips, from top to bottom, and return what is to be said of them, as JSON."""


class MapOutput(SceneOutput):
    """Of networks with a value for each class at each pixel."""

    @abstractmethod
    def strip(self, maps: FloatArray, valid: npt.NDArray[np.bool_] | None, options: PredictionOptions) -> Strip:
        """What is kept of maps (1, K, rows, W); `valid` (rows, width) says which pixels are measured, None all."""


class ObjectOutput(SceneOutput):
    """Of networks that find objects. A strip is a row of windows, and its arrays begin with the number of an object."""

    @abstractmethod
    def window(
        self,
        run: Callable[[FloatArray], tuple[FloatArray, ...]],
        card: "ModelCard",
        pixels: Pixels,
        valid: npt.NDArray[np.bool_] | None,
        look: Look,
    ) -> Strip:
        """What is kept of the objects in a window, nothing where nothing is measured; `scores` is among it.

        `run` is the network on normalised images, `pixels` (h, w, C) are those of the window, `valid` says which of
        them are measured, None all.
        """
