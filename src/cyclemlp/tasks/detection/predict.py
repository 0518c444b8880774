"""The objects of an image from several passes of the network: at other sizes, mirrored, and in windows.

The objects that all passes find are put together, and among overlapping ones of a class the top-scoring is kept
(non-maximum suppression at the overlap of the model card), with the box, score and mask of its own pass. Nothing is
averaged, so scores keep their meaning; a further pass can only add objects or replace one by a higher-scoring one.

A window cuts objects at its border. Windows therefore overlap, and an object that touches a border inside the image is
left to the neighbouring window wherever that sees more of it. Objects smaller than the overlap are always seen whole by
some window. Larger ones may remain in pieces; a piece gives way to a whole object that covers it, seen at a smaller
scale for example.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cyclemlp.data.drawing import as_rgb, colour_list, legend_name, palette
from cyclemlp.data.objects import Record, any_measured, masks_of
from cyclemlp.data.outlines import Patch
from cyclemlp.data.resizing import ResizeRule
from cyclemlp.data.tags import tag_size, write_tags
from cyclemlp.files import JsonObject
from cyclemlp.heads.detection_options import SHOWN_SCORE, DetectionHead
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.detection.decoding import Detections, RunNetwork, detect, paste_patch, suppress
from cyclemlp.tasks.detection.metrics import coco_results
from cyclemlp.tasks.looks import FloatArray, Look, NetworkImage, Pixels, Span

_MAX_NAMED = 60
"""With more objects than this, their names would cover the image."""


@dataclass(frozen=True, eq=False)
class DetectionResult:
    """The objects in an image, the top-scoring first."""

    detections: Detections
    """Boxes, scores, class numbers, and masks for instance segmentation."""
    classes: tuple[str, ...]
    """Name of each class."""
    image: npt.NDArray[np.uint8]
    """(H, W, C) the image itself, on which `draw` paints."""
    given_masks: npt.NDArray[np.uint8] | None = None
    """(D, H, W) masks of 0 and 1, in place of those that follow from the detections; for labels."""
    category_ids: tuple[int, ...] = ()
    """Number of each class in COCO's results; none for 1, 2, ..."""
    shown_score: float = SHOWN_SCORE
    """Objects with lower scores are not shown in a report."""
    valid: npt.NDArray[np.bool_] | None = None
    """(H, W) whether each pixel is measured and not transparent; None where all are. Objects lie on such pixels."""

    def __len__(self) -> int:
        return len(self.detections.scores)

    @property
    def boxes(self) -> npt.NDArray[np.float32]:
        """(D, 4) left, top, right, bottom in pixels."""
        return self.detections.boxes_xyxy

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """(D,) from 0 to 1."""
        return self.detections.scores

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(D,) class numbers."""
        return self.detections.labels

    @property
    def names(self) -> list[str]:
        """Class of each object."""
        return [self.classes[int(label)] for label in self.labels]

    @property
    def has_masks(self) -> bool:
        """Whether objects have masks."""
        return self.given_masks is not None or self.detections.mask_probabilities is not None

    def mask(self, index: int) -> npt.NDArray[np.bool_]:
        """(H, W) where object `index` is. Computed on request: the masks of a large image would fill the memory."""
        return self.patch(index).whole(self.image.shape[:2]).astype(np.bool_)

    def patch(self, index: int) -> Patch:
        """The part of the mask of object `index` that can hold ones: small in a large image."""
        patch = self._whole_patch(index)
        if self.valid is None:
            return patch
        height, width = patch.bitmap.shape
        seen = self.valid[patch.top : patch.top + height, patch.left : patch.left + width]
        return patch._replace(bitmap=patch.bitmap * seen.astype(np.uint8))

    def _whole_patch(self, index: int) -> Patch:
        if self.given_masks is not None:
            return Patch(0, 0, self.given_masks[index])
        probabilities = self.detections.mask_probabilities
        if probabilities is None:
            raise ValueError("the objects have boxes without masks")
        return paste_patch(probabilities[index], self.boxes[index], self.image.shape[:2])

    def above(self, score: float) -> "DetectionResult":
        """The objects of at least this score."""
        return replace(self, detections=self.detections.select(self.scores >= score))

    def to_dict(self) -> JsonObject:
        """Task, size and objects as JSON values; a mask is given by its area in pixels, in full by `to_coco`."""
        objects: list[JsonObject] = []
        for i, (name, score, box) in enumerate(zip(self.names, self.scores, self.boxes, strict=True)):
            area = int(self.patch(i).bitmap.sum()) if self.has_masks else None
            objects.append(object_entry(name, float(score), box, area))
        height, width = self.image.shape[:2]
        task = "instance-segmentation" if self.has_masks else "detection"
        return {"task": task, "size": {"height": height, "width": width}, "objects": objects}

    def measured(self) -> list[JsonObject]:
        """Class, score, box, area in pixels and centroid (x, y) of each object.

        The middle of the first pixel is at 0.5. The centroid of a mask without pixels is that of its box.
        """
        objects: list[JsonObject] = self.to_dict()["objects"]
        for i, entry in enumerate(objects):
            patch = self.patch(i)
            y, x = np.nonzero(patch.bitmap)
            left, top, right, bottom = entry["box"]
            entry["centroid"] = [(left + right) / 2, (top + bottom) / 2]
            if len(y):
                entry["centroid"] = [float(x.mean()) + patch.left + 0.5, float(y.mean()) + patch.top + 0.5]
        return objects

    def to_coco(self, image_id: int, category_ids: Sequence[int] | None = None) -> list[JsonObject]:
        """Entries of COCO's results format, with the class numbers of the training data unless others are given."""
        numbers = category_ids or self.category_ids or range(1, len(self.classes) + 1)
        size = (self.image.shape[0], self.image.shape[1])
        patches = [self.patch(i) for i in range(len(self))] if self.has_masks else None
        return coco_results(self.detections, image_id, size, numbers, patches)

    def draw(self, opacity: float = 0.45, *, scores: bool = True) -> Image.Image:
        """The image with every box, its class and, with `scores`, its score; masks are painted with `opacity`."""
        image = self._with_masks(opacity)
        pen = ImageDraw.Draw(image)
        colours = colour_list(len(self.classes))
        size = tag_size(image.size)
        tags = []
        for i in range(len(self))[::-1]:  # the top-scoring above the others
            colour = colours[int(self.labels[i])]
            left, top, right, bottom = (float(value) for value in self.boxes[i])
            pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=1 + size // 12)
            name = legend_name(self.classes, int(self.labels[i])) + (f" {self.scores[i]:.2f}" if scores else "")
            tags.append(((left, top, right, bottom), name, colour))
        if len(self) <= _MAX_NAMED:
            write_tags(pen, image.size, size, tags[::-1])
        return image

    def _with_masks(self, opacity: float) -> Image.Image:
        image = as_rgb(self.image)
        if not self.has_masks:
            return image
        # One colour for each object, so that touching objects can be distinguished.
        colours = palette(max(8, len(self)))
        for i in range(len(self))[::-1]:
            patch = self.patch(i)
            paint = Image.fromarray(patch.bitmap * np.uint8(round(255 * opacity)))
            image.paste(tuple(colours[i].tolist()), (patch.left, patch.top), paint)
        return image


def object_entry(name: str, score: float, box: FloatArray, area: int | None) -> JsonObject:
    """An object as JSON values; the area is that of its mask, where it has one."""
    entry = {"class": name, "score": score, "box": [round(float(value), 2) for value in box]}
    return entry if area is None else {**entry, "area": area}


def labelled(record: Record, classes: tuple[str, ...], image: npt.NDArray[np.uint8]) -> DetectionResult:
    """The labels of an image as a result, to draw them; without the regions that are to be ignored."""
    record = record.select(~record.crowd)
    ones = np.ones(len(record.labels), dtype=np.float32)
    masks = masks_of(record) if record.has_masks and len(ones) else None
    return DetectionResult(Detections(record.boxes_xyxy, ones, record.labels), classes, image, masks)


TOUCH = 4.0
"""Network pixels from a border within which a box counts as touching it: half the finest stride."""
COVERED = 0.8
"""Share of a piece's box that a whole object must cover for the piece to be a part of it."""

Flags = npt.NDArray[np.bool_]


def find_objects(image: NetworkImage) -> DetectionResult:
    """The objects in an image of any size; at most as many as the card keeps, per window where there are several."""
    options = image.card.detection or DetectionHead()
    looks = image.looks()
    found, cut = zip(*(_seen(image, look) for look in image.in_turn(looks)), strict=True)
    detections = found[0]
    if len(found) > 1:
        limit = options.kept * max(map(len, looks))
        detections = merged(Detections.joined(found), np.concatenate(cut), options.nms, limit)
    card = image.card
    shown = SHOWN_SCORE if card.shown_score is None else card.shown_score
    valid = image.valid
    if valid is not None:
        detections = detections.select(any_measured(detections.boxes_xyxy, valid))
    ids = card.category_ids
    return DetectionResult(detections, card.classes, image.pixels, category_ids=ids, shown_score=shown, valid=valid)


def _seen(image: NetworkImage, look: Look) -> tuple[Detections, Flags]:
    part = image.pixels[look.rows.start : look.rows.stop, look.columns.start : look.columns.stop]
    return seen_in(image.run, image.card, part, look)


def seen_in(run: RunNetwork, card: ModelCard, part: Pixels, look: Look) -> tuple[Detections, Flags]:
    """What a look finds, in pixels of the image, without what neighbours see better; and which of it is cut.

    `part` (h, w, C) is what the window has of the image.
    """
    shown = part[:, ::-1] if look.view.flipped else part
    found = detect(run, card, shown, ResizeRule(look.scale))
    if look.view.flipped:
        found = found.mirrored(part.shape[1])
    found = found.shifted(look.columns.start, look.rows.start)
    margin = TOUCH / look.scale
    cut_across, left_across = _at_borders(found.boxes_xyxy[:, 0::2], look.columns, margin)
    cut_down, left_down = _at_borders(found.boxes_xyxy[:, 1::2], look.rows, margin)
    stays = ~(left_across | left_down)
    return found.select(stays), (cut_across | cut_down)[stays]


def _at_borders(extents: FloatArray, span: Span, margin: float) -> tuple[Flags, Flags]:
    """Which of the `extents` (N, 2) touch a border inside the image, and which of these a neighbour sees better.

    A neighbour sees it better where it sees the other end as well. Two neighbours never leave an object to each other.
    """
    starts, ends = extents.T
    at_start = (starts <= span.start + margin) & (span.seen_before > -math.inf)
    at_end = (ends >= span.stop - margin) & (span.seen_after < math.inf)
    better_before = at_start & (ends < span.seen_before - margin)
    better_after = at_end & (starts > span.seen_after + margin)
    return at_start | at_end, better_before | better_after


def merged(found: Detections, cut: Flags, max_overlap: float, limit: int) -> Detections:
    """One of each object, the top-scoring first; `cut` says which were seen in part."""
    stays = ~(cut & _covered(found, cut))
    found = found.select(stays)
    return found.select(suppress(found.boxes_xyxy, found.scores, found.labels, max_overlap, limit))


def _covered(found: Detections, cut: Flags) -> Flags:
    """Which of the pieces lie mostly in one whole object of their class."""
    covered = np.zeros_like(cut)
    whole = found.select(~cut)
    for i in np.flatnonzero(cut):
        box = found.boxes_xyxy[i]
        edges = np.minimum(box[2:], whole.boxes_xyxy[:, 2:]) - np.maximum(box[:2], whole.boxes_xyxy[:, :2])
        shared = np.maximum(edges, 0).prod(axis=1) * (whole.labels == found.labels[i])
        covered[i] = (shared >= COVERED * (box[2:] - box[:2]).prod()).any()
    return covered
