"""Detection and instance segmentation: what is measured, by COCO's rules."""

import contextlib
import copy
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cyclemlp.data.objects import Record, coco_truth
from cyclemlp.data.outlines import Patch, rle_of_patch, to_coco
from cyclemlp.errors import MissingExtraError
from cyclemlp.files import JsonObject
from cyclemlp.heads.detection_options import COCO_DETECTIONS, SHOWN_SCORE
from cyclemlp.tasks.detection.decoding import Detections, paste_patch
from cyclemlp.tasks.detection.object_scores import ImageObjects, object_scores

_logger = logging.getLogger(__name__)

_AREAS = {"": 0, "s": 1, "m": 2, "l": 3}


def patches_of(found: Detections, size: tuple[int, int]) -> list[Patch] | None:
    """The mask of each object in an image of `size` (height, width); None for boxes without masks."""
    if found.mask_probabilities is None:
        return None
    return [paste_patch(*each, size) for each in zip(found.mask_probabilities, found.boxes_xyxy, strict=True)]


def coco_results(
    found: Detections,
    image_id: int,
    size: tuple[int, int],
    category_ids: Sequence[int],
    patches: Sequence[Patch] | None,
) -> list[JsonObject]:
    """Entries of COCO's results format for an image of `size` (height, width); the `patches` of objects as RLE."""
    entries = []
    for i, (box, score, label) in enumerate(zip(found.boxes_xyxy, found.scores, found.labels, strict=True)):
        left, top, right, bottom = (float(value) for value in box)
        entry: JsonObject = {
            "image_id": image_id,
            "category_id": category_ids[int(label)],
            "bbox": [left, top, right - left, bottom - top],
            "score": float(score),
        }
        if patches is not None:
            entry["segmentation"] = to_coco(rle_of_patch(patches[i], size))
        entries.append(entry)
    return entries


@dataclass(kw_only=True, eq=False)
class DetectionCounts:
    """Detections and labels, image by image, from which average precision follows; those of several parts add up."""

    masks: bool
    """Whether masks are compared as well as boxes."""
    max_detections: int = COCO_DETECTIONS
    """Maximum number of boxes per image that are scored."""
    category_ids: Sequence[int] | None = None
    """Number of each class in `results`; None for 1, 2, ..."""
    score_threshold: float = SHOWN_SCORE
    """Of the scores that count objects; average precision needs none."""
    records: dict[int, Record] = field(default_factory=dict)
    results: list[JsonObject] = field(default_factory=list)
    objects: dict[int, ImageObjects] = field(default_factory=dict)
    """By image, where masks are compared."""

    def add(self, record: Record, found: Detections, classes: int) -> None:
        """Add the labels of an image and what was found in it; `classes` is how many there are."""
        self.records[record.image_id] = record
        patches = patches_of(found, record.size)
        self.results += coco_results(found, record.image_id, record.size, self._numbers(classes), patches)
        if self.masks and patches is not None:
            compared = ImageObjects.of(record, patches, found.scores, found.labels)
            self.objects[record.image_id] = compared

    def _numbers(self, classes: int) -> Sequence[int]:
        return self.category_ids or range(1, classes + 1)

    def merge(self, other: "DetectionCounts") -> None:
        """Add the images of `other`, as if they had been counted here."""
        self.records |= other.records
        self.results += other.results
        self.objects |= other.objects

    def metrics(self, classes: Sequence[str]) -> JsonObject:
        """Average precision over overlaps 0.5 to 0.95, at 0.5 and 0.75, by size, and of each class; None where absent.

        For instance segmentation the scores of masks and of boxes, under `mask_` and `box_`, and under `objects` those
        of `cyclemlp.tasks.detection.object_scores`.
        """
        numbers = self._numbers(len(classes))
        truth = coco_truth(self.records.values(), classes, numbers)
        if not self.masks:
            return _scores(truth, self.results, "bbox", self.max_detections, classes)
        ordered = [self.objects[number] for number in sorted(self.objects)]  # sums then do not depend on the order
        scores: JsonObject = {"objects": object_scores(ordered, self.score_threshold)}
        for kind, prefix in (("segm", "mask_"), ("bbox", "box_")):
            part = _scores(truth, self.results, kind, self.max_detections, classes)
            scores |= {prefix + name: value for name, value in part.items()}
        return scores


def _scores(
    truth: JsonObject, results: list[JsonObject], kind: str, max_detections: int, classes: Sequence[str]
) -> JsonObject:
    """Average precision of boxes (`bbox`) or masks (`segm`)."""
    precision = _precision(truth, results, kind, max_detections)
    single = {f"AP{area}": _mean(precision[..., index, -1]) for area, index in _AREAS.items() if area}
    return {
        "mAP": _mean(precision[..., 0, -1]),
        "AP50": _mean(precision[0, ..., 0, -1]),
        "AP75": _mean(precision[5, ..., 0, -1]),
        **single,
        "AP": {name: _mean(precision[:, :, i, 0, -1]) for i, name in enumerate(classes)},
    }


def _precision(truth: JsonObject, results: list[JsonObject], kind: str, max_detections: int) -> npt.NDArray[np.float64]:
    """(10 overlaps, 101 recalls, classes, 4 ranges of area, 3 numbers of boxes); -1 where there is nothing to find."""
    if not truth["annotations"]:
        return np.full((10, 101, len(truth["categories"]), 4, 3), -1.0)
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "train") from error
    with contextlib.redirect_stdout(io.StringIO()):
        # Copies, since it writes areas and encoded masks into what it is given.
        labels = COCO(copy.deepcopy(truth), print_function=_logger.debug)
        # Given a box, the library takes the area of the box for that of the mask, and sizes would be wrong.
        judged = [
            {k: v for k, v in each.items() if kind != "segm" or k != "bbox"} for each in results or [_missed(truth)]
        ]
        found = labels.loadRes(copy.deepcopy(judged))
        comparison = COCOeval_faster(labels, found, kind, print_function=_logger.debug)
        comparison.params.maxDets = [1, 10, max_detections] if max_detections > 10 else [max_detections] * 3
        comparison.evaluate()
        comparison.accumulate()
    return np.asarray(comparison.eval["precision"])


def _missed(truth: JsonObject) -> JsonObject:
    """A detection that overlaps nothing: the library cannot load an empty list."""
    image = truth["images"][0]
    size = (image["height"], image["width"])
    empty = to_coco(rle_of_patch(Patch(0, 0, np.zeros((0, 0), dtype=np.uint8)), size))
    place = {"bbox": [-2.0, -2.0, 1.0, 1.0], "segmentation": empty}
    return {"image_id": image["id"], "category_id": truth["categories"][0]["id"], "score": 0.0, **place}


def _mean(precision: npt.NDArray[np.float64]) -> float | None:
    counted = precision[precision > -1]
    return float(counted.mean()) if counted.size else None
