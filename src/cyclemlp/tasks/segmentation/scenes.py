"""Masks of scenes: a raster of class ids where the scene lies, probabilities on request, and polygons."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cyclemlp.data import drawing
from cyclemlp.data.class_choice import is_background
from cyclemlp.data.masks import IGNORE_INDEX
from cyclemlp.data.polygons import write_polygons
from cyclemlp.data.scenes import Place, write_geotiff
from cyclemlp.errors import ConfigError
from cyclemlp.files import JsonMapping, JsonObject, atomic_write
from cyclemlp.tasks.looks import FloatArray
from cyclemlp.tasks.options import PredictionOptions
from cyclemlp.tasks.scenes import MapOutput, Strip
from cyclemlp.tasks.segmentation.areas import ValidationCounts, in_hectares
from cyclemlp.tasks.segmentation.predict import most_probable_classes, softmax

if TYPE_CHECKING:
    from cyclemlp.tasks.card import ModelCard

_OF_OTHER_ERRORS = ("window", "value_range", "scales", "ground_resolution")
"""Options with which a network makes other errors than it made on its validation images."""
PROBABILITY_SCALE = 1 / 255
"""Probability of a step in the raster of probabilities, whose values are uint8."""


class MaskScenes(MapOutput):
    """NAME_mask.tif; NAME_probabilities.tif with --probabilities, and the polygons of --vector."""

    def files(self, options: PredictionOptions) -> Mapping[str, str]:
        if options.objects:
            raise ConfigError("--objects is not for scenes: --vector gpkg writes their objects, with areas")
        found = {"mask": "_mask.tif"}
        if options.probabilities:
            found["probabilities"] = "_probabilities.tif"
        if options.vector is not None:
            found["polygons"] = f"_polygons.{options.vector}"
        return found

    def strip(self, maps: FloatArray, valid: npt.NDArray[np.bool_] | None, options: PredictionOptions) -> Strip:
        arrays: dict[str, npt.NDArray[Any]] = {}
        if options.probabilities:
            maps = softmax(maps)
            arrays["probabilities"] = np.rint(maps[0] / PROBABILITY_SCALE).astype(np.uint8)
        arrays["mask"] = most_probable_classes([maps])[0]
        if valid is not None:
            arrays["mask"][~valid] = IGNORE_INDEX
        return arrays

    def write(
        self,
        strips: Iterable[Strip],
        place: Place,
        card: "ModelCard",
        files: Mapping[str, Path],
        options: PredictionOptions,
    ) -> JsonObject:
        counts = np.zeros(256, dtype=np.int64)
        tags = {f"class_{number}": name for number, name in enumerate(card.classes)}
        with atomic_write(files["mask"]) as file:
            colours = {number: (*colour, 255) for number, colour in enumerate(drawing.colour_list(len(card.classes)))}
            counted = _counted(strips, counts)
            write_geotiff(file, place, counted, 1, IGNORE_INDEX, colours=colours, tags=tags)
        if "probabilities" in files:
            with atomic_write(files["probabilities"]) as file:
                bands = (strip["probabilities"] for strip in strips)
                names = {"names": card.classes, "scale": PROBABILITY_SCALE}
                write_geotiff(file, place, bands, len(card.classes), None, tags=tags, **names)
        if "polygons" in files:
            left_out = {IGNORE_INDEX} | ({0} if is_background(card.classes) else set())
            simplify = options.simplify or 0.0
            write_polygons(files["mask"], files["polygons"], place, card.classes, left_out, simplify)
        entry = _described(counts, place, card.classes)
        if card.validation_counts:
            entry["estimated_areas"] = _estimated(entry["pixels"], place, card, options)
        return entry


def _estimated(pixels: Mapping[str, int], place: Place, card: "ModelCard", options: PredictionOptions) -> JsonObject:
    """The areas of a mask corrected by the errors on validation images, which other options would have changed."""
    changed = [name for name in _OF_OTHER_ERRORS if getattr(options, name) is not None]
    if changed:
        return {"reason": f"--{changed[0].replace('_', '-')} was not used on the validation images"}
    known = ValidationCounts.from_dict(card.validation_counts, len(card.classes))
    return in_hectares(known.areas(list(pixels.values()), card.classes), sum(pixels.values()), place.pixel_area)


def _counted(strips: Iterable[Strip], counts: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[Any]]:
    for strip in strips:
        counts += np.bincount(strip["mask"].reshape(-1), minlength=256)
        yield strip["mask"][None]


def _described(counts: npt.NDArray[np.int64], place: Place, classes: tuple[str, ...]) -> JsonObject:
    """As of any image; and areas in square metres where coordinates are lengths. Shares are of the measured pixels."""
    pixels = dict(zip(classes, counts.tolist(), strict=False))
    measured = max(1, sum(pixels.values()))
    entry: JsonObject = {
        "task": "segmentation",
        "size": {"height": place.height, "width": place.width},
        "shares": {name: count / measured for name, count in pixels.items()},
        "pixels": pixels,
        "nodata_pixels": int(counts[IGNORE_INDEX]),
    }
    if place.pixel_area is not None:
        entry["areas_m2"] = {name: count * place.pixel_area for name, count in pixels.items()}
    return entry


def in_words(areas: JsonMapping, names: Sequence[str]) -> str:
    """The areas of these classes for a line of text; empty without any."""
    if "reason" in areas:
        return f"; areas are not corrected: {areas['reason']}"
    if not areas:
        return ""
    intervals = [f"{name} {_interval(areas['classes'][name])}" for name in names]
    return f"; corrected, with 95 % intervals: {', '.join(intervals)}"


def _interval(area: JsonMapping) -> str:
    if "hectares" in area:
        return f"{area['hectares']:.4g} ha ({area['hectares_low']:.4g} to {area['hectares_high']:.4g})"
    return f"{area['share'] * 100:.1f} % ({area['low'] * 100:.1f} to {area['high'] * 100:.1f})"
