"""From a decoded image and mask to training tensors: cut, scale, flip, turn, colour, normalise.

The region is cut before it is scaled and scaled before it is converted, so that work is done only for the
pixels of the sample.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from cyclemlp.data.augmentation import MaskAugmentation
from cyclemlp.data.images import Pixels
from cyclemlp.data.labelled_images import LabelledImage, WholeImage
from cyclemlp.data.masks import IGNORE_INDEX
from cyclemlp.data.resizing import ResizeRule
from cyclemlp.data.transforms import (
    Normalisation,
    drawn_flips,
    drawn_turns,
    jittered,
    log_uniform,
    random_start,
    resize_image,
    resize_labels,
    uniform,
)

MAX_REDRAWS = 10


@dataclass(frozen=True)
class MaskTrainTransform:
    """A random training sample of an image: float32 (C, c, c) normalised, and int64 (c, c) with 255 = ignore.

    Called with an image, uint8 (H, W, C), and its mask, uint8 (H, W). Where the image is smaller than the region, the
    sample is padded with the mean colour, which is ignored.
    """

    augmentation: MaskAugmentation
    normalisation: Normalisation = field(default_factory=Normalisation)
    rule: ResizeRule = field(default_factory=ResizeRule)

    def __call__(self, image: Pixels, mask: Pixels) -> tuple[Tensor, Tensor]:
        return self.sample(WholeImage(image, mask))

    def sample(self, labelled: LabelledImage) -> tuple[Tensor, Tensor]:
        """As a call, of an image that may be larger than memory."""
        options, crop = self.augmentation, self.augmentation.crop_size
        height, width = labelled.size
        edge = max(1, round(crop / (drawn_scale(options) * self.rule.factor(height, width))))
        top, left = _varied_place(labelled, edge, options)
        rows, columns = _span(top, edge, crop, height), _span(left, edge, crop, width)
        image, mask = labelled.read((rows.source, columns.source))
        image_chw, mask_hw = torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)
        target = (..., rows.target, columns.target)
        size = (rows.target.stop - rows.target.start, columns.target.stop - columns.target.start)
        image_part = jittered(resize_image(image_chw, size), options, options.colour_probability)
        image_out = torch.zeros(labelled.channels, crop, crop)  # 0 is the mean once normalised
        mask_out = torch.full((crop, crop), IGNORE_INDEX, dtype=torch.int64)
        image_out[target] = self.normalisation(image_part)
        mask_out[target] = resize_labels(mask_hw[None], size)[0]
        for axis in drawn_flips(options):
            image_out, mask_out = image_out.flip(axis), mask_out.flip(axis)
        turns = drawn_turns(options.rotate90)
        return image_out.rot90(turns, (-2, -1)), mask_out.rot90(turns, (-2, -1))


def drawn_scale(options: MaskAugmentation) -> float:
    """The factor by which a crop is resized."""
    return (uniform if options.scale_draw == "uniform" else log_uniform)(*options.scale)


class _Span(NamedTuple):
    """Along one axis: the part of the image that is cut, and where it lies in the sample."""

    source: slice
    target: slice


def _span(start: int, edge: int, crop: int, length: int) -> _Span:
    """The part of [start, start + edge) inside [0, length), and its place when `edge` becomes `crop` pixels."""
    first, last = max(start, 0), min(start + edge, length)
    place = round((first - start) * crop / edge)
    end = round((last - start) * crop / edge)
    place = min(place, crop - 1)
    return _Span(slice(first, last), slice(place, max(end, place + 1)))


def _varied_place(labelled: LabelledImage, edge: int, options: MaskAugmentation) -> tuple[int, int]:
    """Top and left of a region that no class fills, as far as a few draws find one."""
    place = _place(labelled, edge, options.rare_class_crops)
    if options.largest_class >= 1:
        return place
    for _ in range(MAX_REDRAWS):
        rows, columns = (  # they start below 0 where the region is larger than the image
            slice(max(start, 0), min(start + edge, length)) for start, length in zip(place, labelled.size, strict=True)
        )
        region = torch.from_numpy(labelled.target((rows, columns)))
        counts = torch.bincount(region.reshape(-1), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
        if int(counts.max()) < options.largest_class * int(counts.sum()):
            break
        place = _place(labelled, edge, options.rare_class_crops)
    return place


def _place(labelled: LabelledImage, edge: int, rare_class_crops: float) -> tuple[int, int]:
    """Top and left of the region: anywhere, or over a pixel of a class drawn from those present."""
    height, width = labelled.size
    row = column = None
    if rare_class_crops and uniform(0, 1) < rare_class_crops and (pixel := _pixel_of_any_class(labelled)):
        row, column = pixel
    return random_start(edge, height, row), random_start(edge, width, column)


def _pixel_of_any_class(labelled: LabelledImage) -> tuple[int, int] | None:
    counts = torch.from_numpy(labelled.totals())
    present = counts.nonzero().flatten().tolist()
    if not present:
        return None
    drawn = present[int(torch.multinomial(counts[present].double().rsqrt(), 1))]
    return labelled.pixel_of(drawn, int(torch.randint(int(counts[drawn]), ())))
