"""From a picture and its objects to training tensors: scale, cut, flip, colour, normalise.

Every random number comes from torch's global generator: the loader seeds it per sample, and the same seed gives the
same sample in any worker.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from cyclemlp.data.box_augmentation import BoxAugmentation
from cyclemlp.data.detection import Record
from cyclemlp.data.instance_masks import whole_mask
from cyclemlp.data.resizing import ResizeRule
from cyclemlp.data.transforms import Normalisation

Target = dict[str, Tensor]
LEAST_EDGE = 1.0
"""Boxes narrower than this many network pixels are not learnt from."""


class DetectionTrainTransform:
    """A random training sample of a picture, uint8 (H, W, 3), and its record; regions to ignore are left out.

    Gives the image, float32 (3, h, w) normalised, and `boxes` (N, 4) float32 within it, `labels` (N,) int64 and, with
    `masks`, `masks` (N, h, w) uint8.
    """

    def __init__(
        self, augmentation: BoxAugmentation, normalisation: Normalisation, rule: ResizeRule, *, masks: bool = False
    ) -> None:
        self.augmentation = augmentation
        self._normalisation = normalisation
        self._rule = rule
        self._masks = masks

    def __call__(self, pixels: npt.NDArray[np.uint8], record: Record) -> tuple[Tensor, Target]:
        record = record.select(~record.crowd)
        region, size = self._region(pixels.shape[0], pixels.shape[1], record)
        record = _within(record, region, size, self.augmentation.visible)
        part = torch.from_numpy(pixels[region.rows, region.columns]).permute(2, 0, 1)
        image = _colours(_resized(part, size), self.augmentation)
        mean, std = (torch.tensor(values)[:, None, None] for values in _numbers(self._normalisation))
        target = {
            "boxes": torch.from_numpy(_moved(record.boxes_xyxy, region, size)),
            "labels": torch.from_numpy(record.labels),
        }
        if self._masks:
            target["masks"] = _masks(record, region, size)
        return _flipped((image - mean) / std, target, self.augmentation)

    def _region(self, height: int, width: int, record: Record) -> tuple["_Region", tuple[int, int]]:
        """The part of the picture that is cut, and the size it is brought to."""
        factor = math.exp(_uniform(*map(math.log, self.augmentation.scale)))
        new = [max(1, round(edge * factor)) for edge in self._rule.size(height, width)]
        crop = self.augmentation.crop_size or max(new)
        size = (min(new[0], crop), min(new[1], crop))
        # Whole pixels of the picture are cut, so that masks and image are resized alike.
        edges = [
            max(1, round(given * kept / all_)) for given, kept, all_ in zip((height, width), size, new, strict=True)
        ]
        middle = self._middle_of_an_object(record)
        rows, columns = (
            _cut(given, edge, held) for given, edge, held in zip((height, width), edges, middle, strict=True)
        )
        return _Region(rows, columns), size

    def _middle_of_an_object(self, record: Record) -> tuple[int | None, int | None]:
        """Row and column that the crop is to hold, None where it may be anywhere."""
        share = self.augmentation.object_crops
        if not share or not len(record.labels) or _uniform(0, 1) >= share:
            return None, None
        left, top, right, bottom = record.boxes_xyxy[int(torch.randint(0, len(record.labels), ()))].tolist()
        return int((top + bottom) / 2), int((left + right) / 2)


@dataclass(frozen=True)
class _Region:
    rows: slice
    columns: slice

    @property
    def frame(self) -> npt.NDArray[np.float32]:
        """Left, top, right, bottom."""
        values = (self.columns.start, self.rows.start, self.columns.stop, self.rows.stop)
        return np.array(values, dtype=np.float32)

    def factors(self, size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Enlargement of x, y, x, y."""
        left, top, right, bottom = self.frame
        return np.array([size[1] / (right - left), size[0] / (bottom - top)] * 2, dtype=np.float32)


def _cut(length: int, edge: int, held: int | None) -> slice:
    """A random stretch of `edge` pixels of `length`, with the pixel `held` in it where one is given."""
    first, last = 0, length - edge
    if held is not None:
        first, last = max(first, held - edge + 1), min(last, held)
    start = int(torch.randint(first, last + 1, ()))
    return slice(start, start + edge)


def _within(record: Record, region: _Region, size: tuple[int, int], visible: float) -> Record:
    """The objects of which enough lies in the region."""
    boxes, frame = record.boxes_xyxy, region.frame
    left = np.clip(boxes, frame[[0, 1, 0, 1]], frame[[2, 3, 2, 3]])
    edges = left[:, 2:] - left[:, :2]
    shares = edges.prod(axis=1) / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-6)
    wide = (edges * region.factors(size)[:2] >= LEAST_EDGE).all(axis=1)
    return record.select(wide & (shares >= max(visible, 1e-6)))


def _moved(boxes: npt.NDArray[np.float32], region: _Region, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    height, width = size
    moved = (boxes - region.frame[[0, 1, 0, 1]]) * region.factors(size)
    cut: npt.NDArray[np.float32] = np.clip(moved, 0, np.array([width, height, width, height])).astype(np.float32)
    return cut


def _masks(record: Record, region: _Region, size: tuple[int, int]) -> Tensor:
    """Cut before they are stacked: those of a large picture together would fill the memory."""
    parts = [whole_mask(outline, record.size)[region.rows, region.columns] for outline in record.segmentations]
    if not parts:
        return torch.zeros(0, *size, dtype=torch.uint8)
    masks: Tensor = F.resize(torch.from_numpy(np.stack(parts)), list(size), F.InterpolationMode.NEAREST_EXACT)
    return masks


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image.shape[-2:]) == size:
        return image
    resized: Tensor = F.resize(image, list(size), F.InterpolationMode.BILINEAR, antialias=True)
    return resized


def _colours(image: Tensor, options: BoxAugmentation) -> Tensor:
    """Changed, on float32 values from 0 to 1."""
    image = image.contiguous().to(torch.float32) / 255
    for strength, adjust in (
        (options.brightness, F.adjust_brightness),
        (options.contrast, F.adjust_contrast),
        (options.saturation, F.adjust_saturation),
    ):
        if strength:
            image = adjust(image, _uniform(1 - strength, 1 + strength))
    return F.adjust_hue(image, _uniform(-options.hue, options.hue)) if options.hue else image


def _flipped(image: Tensor, target: Target, options: BoxAugmentation) -> tuple[Tensor, Target]:
    for probability, axis in ((options.flip, -1), (options.vertical_flip, -2)):
        if not probability or _uniform(0, 1) >= probability:
            continue
        image, boxes = image.flip(axis), target["boxes"].clone()
        low, high = (0, 2) if axis == -1 else (1, 3)
        boxes[:, low], boxes[:, high] = (image.shape[axis] - target["boxes"][:, edge] for edge in (high, low))
        masks = {"masks": target["masks"].flip(axis)} if "masks" in target else {}
        target = {**target, "boxes": boxes, **masks}
    return image, target


def _numbers(normalisation: Normalisation) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return normalisation.mean, normalisation.std


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
