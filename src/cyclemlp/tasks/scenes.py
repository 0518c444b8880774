"""What a task makes of a scene: a raster that lies somewhere on the Earth, or is larger than memory."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cyclemlp.files import JsonObject
from cyclemlp.tasks.looks import FloatArray
from cyclemlp.tasks.options import PredictionOptions

if TYPE_CHECKING:
    from cyclemlp.data.scenes import Place
    from cyclemlp.tasks.card import ModelCard

Strip = Mapping[str, npt.NDArray[Any]]
"""What is kept of some rows of a scene, by name; each array ends with (rows, width)."""


class SceneOutput(ABC):
    """The files of a scene, made strip by strip from the network's maps."""

    @abstractmethod
    def files(self, options: PredictionOptions) -> Mapping[str, str]:
        """The suffix of each file by its kind. Raises ConfigError for options that scenes do not have."""

    @abstractmethod
    def strip(self, maps: FloatArray, valid: npt.NDArray[np.bool_] | None, options: PredictionOptions) -> Strip:
        """What is kept of maps (1, K, rows, width); `valid` (rows, width) says which pixels are measured, None all."""

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
