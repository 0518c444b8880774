"""Prediction on a scene: windows in, a raster of the same place out, in memory that does not grow with its height.

Finished strips are kept in a hidden folder next to the results until those are written whole, so that an interrupted
command goes on after the last one.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from cyclemlp.data.ground_resolution import metres_per_pixel
from cyclemlp.data.image_errors import ImageError
from cyclemlp.data.scenes import Place, Scene, open_scene
from cyclemlp.files import JsonObject, atomic_write
from cyclemlp.inference.inputs import Job
from cyclemlp.inference.predictor import Predictor
from cyclemlp.inference.scene_maps import SceneMaps
from cyclemlp.inference.scene_objects import SceneObjects
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.ground import card_at
from cyclemlp.tasks.options import PredictionOptions
from cyclemlp.tasks.scenes import MapOutput, ObjectOutput, SceneOutput, Strip

_LITTLE = 0.25
"""A factor of size below which a scene loses most of its detail."""
_LOG = logging.getLogger(__name__)


class Strips:
    """The finished strips of a scene, from top to bottom, in a folder that belongs to one request."""

    def __init__(self, folder: Path, request: str, *, keep: bool) -> None:
        self._folder = folder
        mark = folder / "request.json"
        if not keep or not mark.is_file() or mark.read_text(encoding="utf-8") != request:
            self.remove()
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(mark) as file:
            file.write_text(request, encoding="utf-8")

    def __len__(self) -> int:
        number = 0
        while self._path(number).is_file():
            number += 1
        return number

    def __iter__(self) -> Iterator[Strip]:
        for number in range(len(self)):
            with np.load(self._path(number), allow_pickle=False) as arrays:
                yield dict(arrays)

    def add(self, arrays: Strip) -> None:
        """Keep the next strip."""
        with atomic_write(self._path(len(self))) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    def remove(self) -> None:
        """Forget all strips."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.npz"


def predict_scene(
    predictor: Predictor, output: SceneOutput, job: Job, options: PredictionOptions, *, resume: bool
) -> JsonObject:
    """Write the files of a scene, and return its entry. With `resume` the strips of an interrupted call are used.

    Raises ConfigError for several views, DataError for an unusable scene.
    """
    trained, first = predictor.card, next(iter(job.files.values()))
    with open_scene(job.source, trained.pixel_rule) as scene:
        place = scene.place
        metres = metres_per_pixel(place.crs, place.transform, (place.height, place.width))
        _check_degrees(place, metres, job)
        card = _card_for(trained, metres, job.source)
        _warn_of_size(card, place, job.source)
        seen = _seen(predictor.described_as(card), scene, output, options)
        strips = Strips(first.with_name(f".{first.stem}.parts"), _request(card.to_dict(), job, options), keep=resume)
        for strip in seen(len(strips)):
            strips.add(strip)
    entry = output.write(strips, place, card, job.files, options)
    strips.remove()
    return entry if metres is None else {**entry, "ground_resolution_m": metres}


def _seen(
    predictor: Predictor, scene: Scene, output: SceneOutput, options: PredictionOptions
) -> Callable[[int], Iterator[Strip]]:
    """What is kept of a scene, from the strip of the number given on. Raises ConfigError for several views."""
    if isinstance(output, ObjectOutput):
        objects = SceneObjects(predictor, scene, output)
        return lambda first: objects.strips(first) if first < len(objects) else iter(())
    assert isinstance(output, MapOutput)  # there is no third kind
    maps = SceneMaps(predictor, scene)

    def strips(first: int) -> Iterator[Strip]:
        if first < len(maps):
            for rows, values in zip(maps.rows[first:], maps.strips(first), strict=True):
                yield output.strip(values, scene.valid(rows), options)

    return strips


def _warn_of_size(card: ModelCard, place: Place, source: Path) -> None:
    """Say where --short-side or --long-side makes little of a scene: they go by the size of the whole image."""
    factor = card.resize_rule.factor(place.height, place.width)
    if (card.short_side or card.long_side) and factor < _LITTLE:
        name = "--short-side" if card.short_side else "--long-side"
        _LOG.warning(
            "warning: %s: the network was trained with %s, which shrinks this scene of %d x %d pixels to %.1f %%:"
            " cut it into tiles of the size of the training images, or train with --input-scale",
            *(source, name, place.width, place.height, factor * 100),
        )


def _check_degrees(place: Place, metres: float | None, job: Job) -> None:
    """Raise ImageError where GeoJSON cannot be written, since coordinates have no longitude and latitude."""
    if place.crs is not None and metres is None and any(path.suffix == ".geojson" for path in job.files.values()):
        what = "has coordinates that are not on the Earth, and GeoJSON is in longitude and latitude"
        raise ImageError(job.source, what, "give --vector gpkg")


def _card_for(card: ModelCard, metres: float | None, source: Path) -> ModelCard:
    """The card for a scene of this ground resolution; one that does not say it is worth a warning."""
    if card.ground_resolution and metres is None:
        what = f"does not say its ground resolution, and the model was trained at {card.ground_resolution[0]:.4g} m"
        _LOG.warning("warning: %s %s: predicted as it is; --ground-resolution METRES says it", source, what)
    return card_at(card, metres, source)


def _request(card: Mapping[str, Any], job: Job, options: PredictionOptions) -> str:
    """What the strips follow from; the file may have been replaced by another of the same name."""
    found = job.source.stat()
    text = json.dumps([card, repr(options), str(job.source), found.st_size, found.st_mtime_ns], default=str)
    return sha256(text.encode()).hexdigest()
