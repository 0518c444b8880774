"""The objects of a scene, window by window."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from cyclemlp.data.scenes import Scene
from cyclemlp.inference.network_image import OBJECT_WINDOWS, run_network, spans_of, tiling_for
from cyclemlp.inference.predictor import Predictor
from cyclemlp.inference.scene_maps import named, only_view
from cyclemlp.progress import progress_bar
from cyclemlp.tasks.looks import Look
from cyclemlp.tasks.scenes import ObjectOutput, Strip


class SceneObjects:
    """What a predictor's network finds in a scene. Raises ConfigError for several views."""

    def __init__(self, predictor: Predictor, scene: Scene, output: ObjectOutput) -> None:
        self._view = only_view(predictor.views)
        self._predictor, self._scene, self._output = predictor, scene, output
        size = (scene.place.height, scene.place.width)
        self._tiling = tiling_for(predictor.card, size, self._view.scale, OBJECT_WINDOWS)
        self._rows, self._columns = (spans_of(self._tiling, edge) for edge in size)

    def __len__(self) -> int:
        return len(self._rows)

    def strips(self, first: int = 0) -> Iterator[Strip]:
        """The objects of each row of windows from the one of this number on. Raises DataError, naming the file."""
        return named(self._strips(first), self._scene.path)

    def _strips(self, first: int) -> Iterator[Strip]:
        rows = self._rows[first:]
        with progress_bar(what="windows", unit="windows", total=len(rows) * len(self._columns)) as bar:
            for row in rows:
                parts = []
                for column in self._columns:
                    parts.append(self._seen(Look(self._view, self._tiling.input_scale, row, column)))
                    bar.update(1)
                yield _joined([part for part in parts if part and len(part["scores"])])

    def _seen(self, look: Look) -> Strip:
        window = (slice(look.rows.start, look.rows.stop), slice(look.columns.start, look.columns.stop))
        pixels, valid = self._scene.measured(window)
        run = partial(run_network, self._predictor.network)
        return self._output.window(run, self._predictor.card, pixels, valid, look)


def _joined(parts: list[Strip]) -> Strip:
    """All objects of windows that have some; nothing where there are none."""
    return {key: np.concatenate([part[key] for part in parts]) for key in (parts[0] if parts else ())}
