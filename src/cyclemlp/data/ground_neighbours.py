"""Whether validation images lie next to training images on the ground, or on them: their scores are then too good."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cyclemlp.data.common_ground import Footprint, footprints
from cyclemlp.data.problems import Problem
from cyclemlp.data.sampling import evenly_spaced

_MAX_COMPARED = 500
"""Validation images, spread evenly, that are compared with every training image."""
_GAP = 1.0
"""Pixels by which images may be apart and still adjoin: tools round coordinates."""


def neighbours_on_the_ground(images: Mapping[str, Sequence[Path]]) -> list[Problem]:
    """A note where images of `val` adjoin or overlap images of `train`, by name of the split; at most one."""
    train, val = images.get("train", ()), evenly_spaced(images.get("val", ()), _MAX_COMPARED)
    places = footprints(dict.fromkeys((*train, *val)))
    placed = [path for path in train if path in places]
    compared = [path for path in val if path in places]
    if not placed or not compared:
        return []
    bounds = _bounds(places, placed)
    near = {path: placed[found] for path in compared if (found := _near(places[path], bounds)) is not None}
    if not near:
        return []
    first, neighbour = next(iter(near.items()))
    counted = f"as do {len(near)} of {len(compared)} images of val"
    what = f"adjoins or overlaps {neighbour.name} of train on the ground, {counted}"
    fix = "scores will be too good; join both splits and give --val-share 0.2, which holds out blocks of the ground"
    return [Problem(first, "val", what, fix)]


def _bounds(places: Mapping[Path, Footprint], paths: Sequence[Path]) -> npt.NDArray[np.float64]:
    return np.array([places[path].bounds for path in paths])


def _near(place: Footprint, others: npt.NDArray[np.float64]) -> int | None:
    """The number of one of the other bounds that these touch."""
    left, bottom, right, top = place.bounds
    gap = _GAP * place.pixel
    touching = (others[:, 0] <= right + gap) & (others[:, 2] >= left - gap)
    touching &= (others[:, 1] <= top + gap) & (others[:, 3] >= bottom - gap)
    found = np.flatnonzero(touching)
    return int(found[0]) if len(found) else None
