"""The scores that microscopists use: how many objects are found, each with its own pixels, at one score threshold.

Objects are compared as images of object numbers, in which a pixel belongs to one object at most:

- of masks that overlap, the one of higher score keeps a pixel, and one that keeps less than half of its pixels is left
  out (Kirillov et al., "Panoptic Segmentation", 2019, and "Panoptic Feature Pyramid Networks"); of labels that overlap,
  the first keeps it;
- a mask and a label of one class match where their IoU is at least T, for T from 0.5 to 0.9. Such a partner is the only
  one, but for masks that share a label, or labels that share a mask, in exact halves: there one pair counts.

With the matches TP, the masks without one FP and the labels without one FN, summed over all images and classes:

    accuracy  TP / (TP + FP + FN)            the "average precision" of DSB2018, StarDist and Cellpose
    F1        2 TP / (2 TP + FP + FN)
    PQ        F1 * mean IoU of the matches   panoptic quality (Kirillov et al.)
    AJI       aggregated Jaccard index (Kumar et al., 2017): each label with the mask of its class of the largest IoU;
              their intersections over their unions and the areas of all masks that no label chose, over all images

Masks of which half or more lies in a region to ignore (`iscrowd`) count neither as FP nor in AJI, unless they match.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cyclemlp.data.objects import Record
from cyclemlp.data.outlines import Patch, draw_patch
from cyclemlp.files import JsonObject

IOU_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
SCORE_THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(5, 96))
"""Those of which the best is chosen."""
MIN_VISIBLE = 0.5
"""Share of its pixels that a mask has to keep where others of higher score overlap it."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageObjects:
    """What is needed of an image: its labels, its masks (the top-scoring first), and which of them overlap."""

    label_areas: Numbers
    """(T,) in pixels."""
    mask_areas: Numbers
    """(D,) in pixels."""
    scores: npt.NDArray[np.float64]
    """(D,) falling."""
    ignored: npt.NDArray[np.bool_]
    """(D,) masks that lie in regions to ignore by half or more."""
    pairs: Numbers
    """(P, 3) label, mask, and the pixels that they share; of one class, the masks in order."""

    @classmethod
    def of(
        cls, record: Record, patches: Sequence[Patch], scores: npt.ArrayLike, classes: npt.ArrayLike
    ) -> "ImageObjects":
        """Of the labels of an image, and of masks with their scores and class numbers in any order."""
        order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
        labels = [i for i, outline in enumerate(record.segmentations) if outline is not None and not record.crowd[i]]
        drawn = (draw_patch(outline, record.size) for i in labels if (outline := record.segmentations[i]) is not None)
        truth, kept_labels = _numbered(drawn, record.size, 0.0)
        found, kept_masks = _numbered((patches[i] for i in order), record.size, MIN_VISIBLE)
        of_label = record.labels[[labels[i] for i in kept_labels]]
        chosen = order[kept_masks]
        of_mask = np.asarray(classes, np.int64)[chosen]
        return cls(
            label_areas=_areas(truth, len(kept_labels)),
            mask_areas=(areas := _areas(found, len(kept_masks))),
            scores=np.asarray(scores, np.float64)[chosen],
            ignored=2 * _areas(np.where(_ignored_region(record), found, 0), len(kept_masks)) >= np.maximum(areas, 1),
            pairs=_pairs(truth, found, of_label, of_mask),
        )

    def above(self, score: float) -> "ImageObjects":
        """With the masks of at least this score: a mask keeps its pixels against those of lower score."""
        count = int((self.scores >= score).sum())
        pairs = self.pairs[self.pairs[:, 1] < count]
        return ImageObjects(self.label_areas, self.mask_areas[:count], self.scores[:count], self.ignored[:count], pairs)

    @property
    def overlaps(self) -> npt.NDArray[np.float64]:
        """(P,) IoU of each pair."""
        labels, masks, shared = self.pairs.T
        return shared / (self.label_areas[labels] + self.mask_areas[masks] - shared)

    def matches(self, least: float) -> tuple[int, float, int, int]:
        """TP, the sum of their IoUs, FP and FN where a match needs an IoU of `least`, which is 0.5 or more."""
        ious, labels, masks, total = self.overlaps, set[int](), set[int](), 0.0
        for place in np.flatnonzero(ious >= least):
            label, mask = (int(each) for each in self.pairs[place, :2])
            if label not in labels and mask not in masks:  # not so in exact halves alone
                labels.add(label)
                masks.add(mask)
                total += float(ious[place])
        excused = int(self.ignored.sum()) - sum(bool(self.ignored[mask]) for mask in masks)
        return len(labels), total, len(self.mask_areas) - len(masks) - excused, len(self.label_areas) - len(labels)

    def jaccard(self) -> tuple[int, int]:
        """Intersection and union of the aggregated Jaccard index."""
        ious, alone = self.overlaps, self.label_areas.copy()
        chosen = np.zeros(len(self.mask_areas), np.bool_)
        shared = joined = 0
        for label in np.unique(self.pairs[:, 0]):
            places = np.flatnonzero(self.pairs[:, 0] == label)
            _, mask, pixels = self.pairs[places[np.argmax(ious[places])]]
            shared += int(pixels)
            joined += int(self.label_areas[label] + self.mask_areas[mask] - pixels)
            chosen[mask], alone[label] = True, 0
        unused = self.mask_areas[~chosen & ~self.ignored]
        return shared, joined + int(alone.sum()) + int(unused.sum())


def object_scores(images: Sequence[ImageObjects], score_threshold: float) -> JsonObject:
    """The scores over all images at one score threshold, as JSON values; None where there is nothing to count."""
    shown = [image.above(score_threshold) for image in images]
    counted = [
        np.array([image.matches(least) for image in shown]).reshape(-1, 4).sum(axis=0) for least in IOU_THRESHOLDS
    ]
    shared, joined = np.array([image.jaccard() for image in shown]).reshape(-1, 2).sum(axis=0).tolist()
    rows = []
    for least, (found, overlap, wrong, missed) in zip(IOU_THRESHOLDS, counted, strict=True):
        mistakes = wrong + missed
        rows.append(
            {"IoU": least, "TP": int(found), "FP": int(wrong), "FN": int(missed),
             "accuracy": _share(found, found + mistakes),
             "F1": _share(2 * found, 2 * found + mistakes),
             "PQ": _share(2 * overlap, 2 * found + mistakes)}
        )  # fmt: skip
    return {"score_threshold": score_threshold, "by_IoU": rows, "AJI": _share(shared, joined)}


def best_threshold(images: Sequence[ImageObjects]) -> float | None:
    """The score threshold with the highest F1 at an IoU of 0.5, which has the highest accuracy as well.

    Of several, the middle one; None where nothing is found at any.
    """
    values = [_f1(images, threshold) for threshold in SCORE_THRESHOLDS]
    best = max(values)
    if best == 0:
        return None
    places = [place for place, value in enumerate(values) if value == best]
    return SCORE_THRESHOLDS[places[len(places) // 2]]


def _f1(images: Sequence[ImageObjects], threshold: float) -> float:
    found, _, wrong, missed = np.sum([image.above(threshold).matches(0.5) for image in images], axis=0)
    return float(2 * found / max(1, 2 * found + wrong + missed))


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _numbered(patches: Iterator[Patch], size: tuple[int, int], least: float) -> tuple[npt.NDArray[np.int32], list[int]]:
    """An image of object numbers from 1, 0 where there is none, and which of the `patches` are in it, in order."""
    numbers, kept = np.zeros(size, np.int32), list[int]()
    for i, patch in enumerate(patches):
        height, width = patch.bitmap.shape
        place = numbers[patch.top : patch.top + height, patch.left : patch.left + width]
        free = (patch.bitmap != 0) & (place == 0)
        count = int(free.sum())
        if count and count >= least * int(patch.bitmap.sum()):
            kept.append(i)
            place[free] = len(kept)
    return numbers, kept


def _areas(numbers: npt.NDArray[np.int32], count: int) -> Numbers:
    return np.bincount(numbers.ravel(), minlength=count + 1)[1:].astype(np.int64)


def _ignored_region(record: Record) -> npt.NDArray[np.bool_]:
    region = np.zeros(record.size, np.bool_)
    for outline, crowd in zip(record.segmentations, record.crowd, strict=True):
        if crowd and outline is not None:
            region |= draw_patch(outline, record.size).whole(record.size) != 0
    return region


def _pairs(truth: npt.NDArray[np.int32], found: npt.NDArray[np.int32], of_label: Numbers, of_mask: Numbers) -> Numbers:
    both = (truth > 0) & (found > 0)
    width = len(of_mask) + 1
    keys, shared = np.unique(truth[both].astype(np.int64) * width + found[both], return_counts=True)
    labels, masks = keys // width - 1, keys % width - 1
    pairs = np.stack([labels, masks, shared], axis=1)[of_label[labels] == of_mask[masks]]
    return pairs[np.argsort(pairs[:, 1], kind="stable")]
