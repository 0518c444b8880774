"""The maps of a dense network over a scene, in strips from top to bottom, in memory that its height does not change."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cyclemlp.data.scenes import Scene, ScenePlanes
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.inference.network_image import ImageMaps
from cyclemlp.inference.predictor import Predictor
from cyclemlp.inference.views import Views
from cyclemlp.tasks.looks import View

Item = TypeVar("Item")


class SceneMaps:
    """What a predictor's network makes of every pixel of a scene. Raises ConfigError for several views."""

    def __init__(self, predictor: Predictor, scene: Scene) -> None:
        view = only_view(predictor.views)
        self._scene, size = scene, (scene.place.height, scene.place.width)
        self._maps = ImageMaps(predictor.network, predictor.card, size, view.scale, predictor.exact)
        self.rows = self._maps.rows
        """The rows of each strip."""

    def __len__(self) -> int:
        return len(self.rows)

    def strips(self, first: int = 0, *, progress: bool = True) -> Iterator[npt.NDArray[np.float32]]:
        """Maps (1, K, rows, W) from the strip of this number on. Raises DataError, naming the file."""
        return named(self._maps.strips(ScenePlanes(self._scene), first, progress=progress), self._scene.path)


def only_view(views: Views) -> View:
    """The view of a scene. Raises ConfigError for several."""
    view, *others = views
    if others or view.flipped:
        raise ConfigError("scenes are predicted in one view: leave out --flip, and give one of --scales at most")
    return view


def named(strips: Iterator[Item], source: Path) -> Iterator[Item]:
    """The strips of a file, whose name is in any DataError."""
    try:
        yield from strips
    except DataError as error:
        named = str(error) if str(source) in str(error) else f"{source}: {error}"
        raise DataError(named) from error
