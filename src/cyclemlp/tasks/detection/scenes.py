"""Objects of scenes: boxes, or outlines where the network has masks, in the coordinates of the map."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cyclemlp.data.features import feature_file, on_map
from cyclemlp.data.objects import any_measured
from cyclemlp.data.outlines import Patch
from cyclemlp.data.scenes import Place
from cyclemlp.errors import ConfigError
from cyclemlp.files import JsonObject
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.tasks.detection.decoding import Detections
from cyclemlp.tasks.detection.metrics import coco_results, patches_of
from cyclemlp.tasks.detection.predict import COVERED, Flags, object_entry, seen_in
from cyclemlp.tasks.looks import FloatArray, Look, Pixels
from cyclemlp.tasks.options import PredictionOptions
from cyclemlp.tasks.scenes import ObjectOutput, Strip

if TYPE_CHECKING:
    from cyclemlp.tasks.card import ModelCard


class ObjectScenes(ObjectOutput):
    """NAME_objects.geojson, or .gpkg with --vector gpkg."""

    def __init__(self, *, masks: bool) -> None:
        self._task = "instance-segmentation" if masks else "detection"
        self._masks = masks

    def files(self, options: PredictionOptions) -> Mapping[str, str]:
        if options.objects:
            raise ConfigError("--objects is not for scenes: their objects are written with areas anyway")
        return {"vector": f"_objects.{options.vector or 'geojson'}"}

    def window(
        self,
        run: Callable[[FloatArray], tuple[FloatArray, ...]],
        card: "ModelCard",
        pixels: Pixels,
        valid: npt.NDArray[np.bool_] | None,
        look: Look,
    ) -> Strip:
        if valid is not None and not valid.any():
            return {}
        found, cut = seen_in(run, card, pixels, look)
        if valid is not None:
            in_window = found.shifted(-look.columns.start, -look.rows.start)
            stays = any_measured(in_window.boxes_xyxy, valid)
            found, cut = found.select(stays), cut[stays]
        arrays: dict[str, npt.NDArray[Any]] = {"boxes": found.boxes_xyxy, "scores": found.scores}
        arrays |= {"labels": found.labels, "cut": cut}
        masks = found.mask_probabilities
        return arrays if masks is None else {**arrays, "masks": masks}

    def write(
        self,
        strips: Iterable[Strip],
        place: Place,
        card: "ModelCard",
        files: Mapping[str, Path],
        options: PredictionOptions,
    ) -> JsonObject:
        size, numbers = (place.height, place.width), card.category_ids or range(1, len(card.classes) + 1)
        stays = iter(_stays(strips, (card.detection or DetectionHead()).nms))
        objects: list[JsonObject] = []
        coco: list[JsonObject] = []
        types: dict[str, Any] = {"class": object, "class_id": np.int32, "score": np.float64, "area": np.float64}
        if place.pixel_area is not None:
            types["area_m2"] = np.float64
        with feature_file(files["vector"], files["vector"].stem, place, types) as features:
            for strip in strips:
                found = _detections(strip)
                found = found.select(np.array([next(stays) for _ in found.scores], np.bool_))
                patches = patches_of(found, size) if self._masks else None
                coco += [_without_image(entry) for entry in coco_results(found, 0, size, numbers, patches)]
                for number, (shape, area) in enumerate(_shapes(found, patches, options.simplify or 0.0)):
                    label, score = int(found.labels[number]), float(found.scores[number])
                    measured = [area * abs(place.transform.determinant)]
                    measured += [] if place.pixel_area is None else [area * place.pixel_area]
                    features.add(on_map(shape, place), card.classes[label], label, score, *measured)
                    own = None if patches is None else int(area)
                    objects.append(object_entry(card.classes[label], score, found.boxes_xyxy[number], own))
        order = sorted(range(len(objects)), key=lambda number: -objects[number]["score"])
        whole = {"height": place.height, "width": place.width}
        ordered = {"objects": [objects[number] for number in order], "coco": [coco[number] for number in order]}
        return {"task": self._task, "size": whole, **ordered}


def _detections(strip: Strip) -> Detections:
    if "boxes" not in strip:
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    return Detections(strip["boxes"], strip["scores"], strip["labels"], strip.get("masks"))


def _stays(strips: Iterable[Strip], max_overlap: float) -> list[bool]:
    """Which objects of all windows stay, in the order of the strips."""
    names = ("boxes", "scores", "labels", "cut")
    parts = [[strip[name] for name in names] for strip in strips if "boxes" in strip]
    if not parts:
        return []
    boxes, scores, labels, cut = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return kept_of_all(Detections(boxes, scores, labels), cut, max_overlap).tolist()


def kept_of_all(found: Detections, cut: Flags, max_overlap: float) -> Flags:
    """One of each object, as `merged` has it, for as many as a scene has: each is compared with those that it meets."""
    import shapely

    boxes = found.boxes_xyxy.astype(np.float64)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    shapes = shapely.box(*boxes.T)
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    same = (first != second) & (found.labels[first] == found.labels[second])
    first, second = first[same], second[same]
    edges = np.minimum(boxes[first, 2:], boxes[second, 2:]) - np.maximum(boxes[first, :2], boxes[second, :2])
    shared = np.maximum(edges, 0).prod(axis=1)
    kept = np.ones(len(boxes), np.bool_)
    kept[first[cut[first] & ~cut[second] & (shared >= COVERED * areas[first])]] = False
    with np.errstate(invalid="ignore", divide="ignore"):  # boxes without area
        rivals = (shared / (areas[first] + areas[second] - shared) > max_overlap) & kept[first] & kept[second]
    order = np.argsort(first[rivals], kind="stable")
    of, others = first[rivals][order], second[rivals][order]
    starts = np.searchsorted(of, np.arange(len(boxes) + 1))
    for number in np.argsort(-found.scores, kind="stable"):
        if kept[number]:
            kept[others[starts[number] : starts[number + 1]]] = False
    return kept


def _shapes(found: Detections, patches: Sequence[Patch] | None, simplify: float) -> Iterator[tuple[Any, float]]:
    """The outline of each object, or its box, in pixels of the scene, and its area in pixels.

    The outline of a mask without pixels is the box.
    """
    import shapely

    for number, box in enumerate(found.boxes_xyxy.astype(np.float64)):
        outline = shapely.box(*box)
        if patches is None:
            yield outline, float(outline.area)
            continue
        bitmap = patches[number].bitmap
        if bitmap.any():
            outline = _outline(patches[number])
            outline = outline.simplify(simplify) if simplify else outline
        yield outline, float(bitmap.sum())


def _outline(patch: Patch) -> Any:
    import shapely.geometry
    from rasterio import Affine
    from rasterio.features import shapes

    place = Affine.translation(patch.left, patch.top)
    found = shapes(patch.bitmap, mask=patch.bitmap.astype(np.bool_), connectivity=4, transform=place)
    pieces = [shapely.geometry.shape(piece) for piece, _ in found]
    return pieces[0] if len(pieces) == 1 else shapely.geometry.MultiPolygon(pieces)


def _without_image(entry: JsonObject) -> JsonObject:
    return {key: value for key, value in entry.items() if key != "image_id"}
