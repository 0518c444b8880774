"""Images with boxes, and outlines if there are any: what every format of object annotations is read into.

Only numpy is imported at the top, so that `cyclemlp data` answers without loading torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyclemlp.data.datasets import SplitDataset
from cyclemlp.data.ground_blocks import GroundPart
from cyclemlp.data.images import SIDEWAYS, Pixels, exif_orientation
from cyclemlp.data.measured_images import read_measured
from cyclemlp.data.outlines import Bitmap, Outline, to_coco, whole_mask
from cyclemlp.data.pixel_rule import PHOTO, PixelRule
from cyclemlp.data.problems import FileError
from cyclemlp.data.rasters import Measured

CocoTruth = dict[str, Any]
Boxes = npt.NDArray[np.float32]
ANY_CLASS = -1
"""Label of a region in which objects of every class are ignored."""


@dataclass(frozen=True, eq=False)
class Record:
    """The objects of one image; index i of every field is object i."""

    image_id: int
    size: tuple[int, int]
    """(height, width) of the image."""
    boxes_xyxy: Boxes
    """(N, 4) left, top, right, bottom in pixels, within the image and of positive size."""
    labels: npt.NDArray[np.int64]
    """(N,) class numbers, counted from 0; `ANY_CLASS` of regions to ignore whose objects may be of any."""
    crowd: npt.NDArray[np.bool_]
    """(N,) regions to ignore: many objects under one outline in COCO, a difficult object in VOC. Not trained on."""
    areas: npt.NDArray[np.float64]
    """(N,) in pixels, as annotated (of the outline, if there is one)."""
    segmentations: tuple[Outline | None, ...]
    """Outlines, not yet decoded; see `masks_of`."""
    size_noted: bool = True
    """Whether the annotations say the size; otherwise it is that of the file, and nothing compares the two."""

    def select(self, keep: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> "Record":
        """The record of some of its objects, chosen by a mask or by indices."""
        chosen = np.arange(len(self.labels))[keep]
        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[chosen],
            labels=self.labels[chosen],
            crowd=self.crowd[chosen],
            areas=self.areas[chosen],
            segmentations=tuple(self.segmentations[i] for i in chosen),
        )

    @property
    def has_masks(self) -> bool:
        """Whether every object has an outline."""
        return all(outline is not None for outline in self.segmentations)


def where_seen(record: Record, valid: Measured | None) -> Record:
    """The record with objects of which no pixel is measured marked as regions to ignore."""
    if valid is None or not len(record.labels):
        return record
    return replace(record, crowd=record.crowd | ~any_measured(record.boxes_xyxy, valid))


def any_measured(boxes_xyxy: Boxes, valid: Measured) -> npt.NDArray[np.bool_]:
    """(N,) whether a box holds any pixel that is measured."""
    sums = np.zeros((valid.shape[0] + 1, valid.shape[1] + 1), np.int64)
    sums[1:, 1:] = valid.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    left, top = (np.floor(boxes_xyxy[:, i]).astype(np.intp).clip(0, sums.shape[1 - i] - 1) for i in (0, 1))
    right, bottom = (np.ceil(boxes_xyxy[:, i + 2]).astype(np.intp).clip(0, sums.shape[1 - i] - 1) for i in (0, 1))
    counted: npt.NDArray[np.bool_] = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left] > 0
    return counted


@dataclass(frozen=True)
class DetectionSplit:
    """The images of a split and the objects of each, in the same order."""

    images: tuple[Path, ...]
    records: tuple[Record, ...]
    annotations: Path | None = None
    """COCO's annotation file, if the split comes from one; the official evaluation reads it."""
    rule: PixelRule = PHOTO
    """How the images become pixels."""
    part: GroundPart | None = None
    """The part of the ground that the split has, by which its records are made; None where all is the split's."""

    def read(self, index: int) -> tuple[Pixels, Record]:
        """An image, uint8 (H, W, C), and its record. Raises DataError for an unusable file or one of another size."""
        path, record = self.images[index], self.records[index]
        image = read_measured(path, self.rule)
        check_size(path, (image.pixels.shape[0], image.pixels.shape[1]), record.size)
        return image.pixels, where_seen(record, image.valid)


@dataclass(frozen=True)
class DetectionDataset(SplitDataset[DetectionSplit]):
    """Images with boxes, and outlines if there are any."""

    category_ids: tuple[int, ...] = ()
    """The number that the annotation file gives to each class, for results in its terms; 1, 2, ... if there is none"""

    def __post_init__(self) -> None:
        if not self.category_ids:
            object.__setattr__(self, "category_ids", tuple(range(1, len(self.classes) + 1)))

    @property
    def has_masks(self) -> bool:
        """Whether every object of every split has an outline, and there are objects."""
        records = [record for split in self.splits.values() for record in split.records]
        return any(len(r.labels) for r in records) and all(record.has_masks for record in records)


def masks_of(record: Record) -> Bitmap:
    """The masks of a record, uint8 (N, H, W) of 0 and 1; all 0 for an object without an outline."""
    masks = [whole_mask(outline, record.size) for outline in record.segmentations]
    return np.stack(masks) if masks else np.zeros((0, *record.size), np.uint8)


def check_size(path: Path, pixels_hw: tuple[int, int], annotated_hw: tuple[int, int]) -> None:
    """Raise FileError where an image, turned as its EXIF orientation says, has another size than the annotated one."""
    if pixels_hw == annotated_hw:
        return
    read, noted = (f"{width}x{height}" for height, width in (pixels_hw, annotated_hw))
    what, fix = f"is {read} (width x height), its annotation says {noted}", "correct the annotation or the image"
    if pixels_hw == annotated_hw[::-1]:
        if exif_orientation(path) in SIDEWAYS:
            what = f"is {read} (width x height) turned by its EXIF orientation, its annotation says {noted}, as stored"
            fix = "annotate the turned image, or remove the EXIF orientation from the file"
        else:
            what += " with width and height swapped"
    raise FileError(path, what, fix)


def coco_truth(
    records: Iterable[Record], classes: Sequence[str], category_ids: Sequence[int], images: Iterable[Path] | None = None
) -> CocoTruth:
    """The labels in COCO's own form, as evaluators take them, whatever format they were read from.

    Boxes are (x, y, width, height). Annotations are numbered from 1, because evaluators take 0 for none. Regions in
    which every class is ignored are one annotation for each, since evaluators compare class by class. The files of the
    `images` are named if they are given.
    """
    listed: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    paths: Iterable[Path | None] = repeat(None) if images is None else images
    for record, path in zip(records, paths, strict=False):
        name = {} if path is None else {"file_name": path.name}
        listed.append({"id": record.image_id, **name, "height": record.size[0], "width": record.size[1]})
        for i, (left, top, right, bottom) in enumerate(record.boxes_xyxy.tolist()):
            outline = record.segmentations[i] if record.segmentations else None
            drawn = {} if outline is None else {"segmentation": to_coco(outline)}
            label = int(record.labels[i])
            for category in category_ids if label == ANY_CLASS else [category_ids[label]]:
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": category,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": float(record.areas[i]),
                    "iscrowd": int(record.crowd[i]),
                }
                annotations.append(annotation | drawn)
    categories = [{"id": number, "name": name} for number, name in zip(category_ids, classes, strict=True)]
    return {"info": {}, "images": listed, "annotations": annotations, "categories": categories}


def as_coco(dataset: DetectionDataset, split: str) -> CocoTruth:
    """A split as `coco_truth`, with the names of its files."""
    part = dataset.splits[split]
    return coco_truth(part.records, dataset.classes, dataset.category_ids, part.images)
