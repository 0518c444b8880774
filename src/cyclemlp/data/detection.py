"""Pictures with boxes, and outlines where there are any: what every format of object annotations is read into.

Only numpy is imported at the top, so that `cyclemlp data` answers without loading torch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyclemlp.data.images import read_image
from cyclemlp.data.instance_masks import Bitmap, Outline, stacked, to_coco, whole_mask
from cyclemlp.errors import DataError

Boxes = npt.NDArray[np.float32]
REQUIRED_SPLITS = ("train", "val")


@dataclass(frozen=True, eq=False)
class Record:
    """The objects of one picture; index i of every field is object i."""

    image_id: int
    size: tuple[int, int]
    """(height, width) of the picture."""
    boxes_xyxy: Boxes
    """(N, 4) left, top, right, bottom in pixels, within the picture and of positive size."""
    labels: npt.NDArray[np.int64]
    """(N,) class numbers from 0 on."""
    crowd: npt.NDArray[np.bool_]
    """(N,) regions to ignore: many objects under one outline in COCO, a difficult object in VOC. Not trained on."""
    areas: npt.NDArray[np.float64]
    """(N,) in pixels, as annotated (of the outline, where there is one)."""
    segmentations: tuple[Outline | None, ...]
    """Outlines, not yet decoded; see `masks_of`."""

    def select(self, keep: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> "Record":
        """The record of some of its objects, by a mask or by numbers."""
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


@dataclass(frozen=True)
class DetectionSplit:
    """The pictures of a split and the objects of each, in the same order."""

    images: tuple[Path, ...]
    records: tuple[Record, ...]
    annotations: Path | None = None
    """COCO's annotation file, where the split comes from one: the evaluation by the book reads it."""


@dataclass(frozen=True)
class DetectionDataset:
    """A whole data set, of whichever format; label `i` is `classes[i]`."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, DetectionSplit]
    category_ids: tuple[int, ...] = ()
    """The number that the annotation file gives to each class, for results in its terms; without one 1, 2, ..."""

    def __post_init__(self) -> None:
        if not self.category_ids:
            object.__setattr__(self, "category_ids", tuple(range(1, len(self.classes) + 1)))

    @property
    def has_masks(self) -> bool:
        """Whether every object of every split has an outline, and there are objects."""
        records = [record for split in self.splits.values() for record in split.records]
        return any(len(r.labels) for r in records) and all(record.has_masks for record in records)


class DetectionSamples:
    """The pictures of a split with their objects as a map-style torch data set.

    An item is what `transform(pixels, record)` makes of a picture, uint8 (H, W, 3), and its record. Reading an item
    raises DataError for an unusable file and for a picture of another size than annotated.
    """

    def __init__(self, split: DetectionSplit, transform: Callable[[Any, Record], tuple[Any, dict[str, Any]]]) -> None:
        self.split = split
        self.transform = transform

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        path, record = self.split.images[index], self.split.records[index]
        pixels = read_image(path)
        if pixels.shape[:2] != record.size:
            raise DataError(f"{path} {other_size(pixels.shape[:2], record.size)}; correct the annotation or the image")
        return self.transform(pixels, record)


def masks_of(record: Record) -> Bitmap:
    """The masks of a record, uint8 (N, H, W) of 0 and 1; all 0 for an object without an outline."""
    return stacked([whole_mask(outline, record.size) for outline in record.segmentations], record.size)


def other_size(pixels_hw: tuple[int, ...], annotated_hw: tuple[int, ...]) -> str:
    """What is wrong with a picture of another size than annotated."""
    read, noted = (f"{width}x{height}" for height, width in (pixels_hw, annotated_hw))
    return f"is {read} (width x height), its annotation says {noted}"


def as_coco(dataset: DetectionDataset, split: str) -> dict[str, Any]:
    """A split in COCO's own form, as evaluators take it: annotations numbered from 1, boxes (x, y, width, height).

    For every format, and with annotation numbers an evaluator can tell from "none" (some files begin at 0).
    """
    part = dataset.splits[split]
    images = [
        {"id": record.image_id, "file_name": path.name, "height": record.size[0], "width": record.size[1]}
        for path, record in zip(part.images, part.records, strict=True)
    ]
    objects = [(record, i) for record in part.records for i in range(len(record.labels))]
    categories = zip(dataset.category_ids, dataset.classes, strict=True)
    return {
        "images": images,
        "annotations": [_annotation(dataset, r, i, number) for number, (r, i) in enumerate(objects, start=1)],
        "categories": [{"id": number, "name": name} for number, name in categories],
    }


def _annotation(dataset: DetectionDataset, record: Record, index: int, number: int) -> dict[str, Any]:
    left, top, right, bottom = record.boxes_xyxy[index].tolist()
    outline = record.segmentations[index]
    return {
        "id": number,
        "image_id": record.image_id,
        "category_id": dataset.category_ids[int(record.labels[index])],
        "bbox": [left, top, right - left, bottom - top],
        "area": float(record.areas[index]),
        "iscrowd": int(record.crowd[index]),
        **({} if outline is None else {"segmentation": to_coco(outline)}),
    }
