"""What is in the masks of a data set, and everything that is wrong with them: every file is decoded."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cyclemlp.data.file_reports import (
    Reports,
    SplitReport,
    TimeLimit,
    orientation_or_1,
    read_all,
    size_and_orientation,
)
from cyclemlp.data.images import SAME_SIZE, SIDEWAYS
from cyclemlp.data.mask_values import (
    Counts,
    MaskValues,
    grey_levels,
    hidden_pixels,
    ignored_by_name,
    nodata_pixels,
    numbers_of_objects,
    objects_off_their_images,
    odd_values,
    other_palettes,
    palettes_by_number,
    transparent_numbers,
    turned_within_size,
    values_of,
    white_in_one_split,
    white_in_some_masks,
)
from cyclemlp.data.masks import (
    IGNORE_INDEX,
    MaskDataset,
    MaskSplit,
    masks_folder,
    no_second_class,
    numbered_classes,
    outside_classes,
    with_white_class,
)
from cyclemlp.data.problems import Findings, Problem


@dataclass(frozen=True)
class _Counted:
    """What was read of one split: `totals` are pixels of each class, `values_in` the values of each mask."""

    images: int
    pixels: int
    totals: Counts
    values_in: dict[Path, MaskValues]


def inspect_masks(
    dataset: MaskDataset, findings: Findings, limit: TimeLimit | None
) -> tuple[MaskDataset, Reports, list[Problem]]:
    """The data set with its classes counted if they are not named, the counts of each split, and notes."""
    dataset = with_white_class(dataset)
    counted = {name: _count_masks(split, findings.of(name), limit) for name, split in dataset.splits.items()}
    totals: Counts = np.sum([np.zeros(256, np.int64), *(files.totals for files in counted.values())], axis=0)
    highest = int(np.flatnonzero(totals[:IGNORE_INDEX]).max(initial=0))
    classes = dataset.classes if dataset.named else numbered_classes(highest)
    values_in = {path: present for files in counted.values() for path, present in files.values_in.items()}
    for name, files in counted.items():
        findings.problems += _outside(dataset.splits[name], name, files, len(classes))
        findings.notes += transparent_numbers(name, files.values_in) + nodata_pixels(name, files.values_in)
        findings.notes += hidden_pixels(name, files.values_in)
        lost, notes = objects_off_their_images(dataset.splits[name], name, files.values_in)
        findings.problems += lost
        findings.notes += notes
    findings.notes += palettes_by_number(dataset, values_in) + ignored_by_name(dataset)
    findings.problems += other_palettes(values_in)
    if all(split.by_number for split in dataset.splits.values()):
        findings.problems += white_in_one_split({name: files.values_in for name, files in counted.items()})
        findings.notes += white_in_some_masks(values_in)
        findings.problems += numbers_of_objects(dataset, values_in)
    stored: Counts = np.sum([np.zeros(256, np.int64), *(values.counts for values in values_in.values())], axis=0)
    stored[IGNORE_INDEX] -= sum(values.nodata for values in values_in.values())
    findings.problems += grey_levels(dataset, stored)
    if np.count_nonzero(totals[:IGNORE_INDEX]) == 1 or (totals.any() and highest == 0):
        findings.problems.append(no_second_class(dataset, highest))
    splits = {}
    for split, files in counted.items():
        class_pixels = {name: int(files.totals[index]) for index, name in enumerate(classes)}
        ignored = int(files.totals[IGNORE_INDEX])
        splits[split] = SplitReport(files.images, files.pixels, "pixels", class_pixels, ignored)
    if any(split.white_class for split in dataset.splits.values()):
        what = f"has masks that hold 0 and 255 alone, which are the classes {' and '.join(classes)}"
        findings.notes.append(Problem(masks_folder(dataset), "", what, "name them in classes.txt, in this order"))
    notes = (
        []
        if dataset.named or highest == 0 or "train" not in dataset.splits
        else odd_values(masks_folder(dataset), totals, values_in)
    )
    return replace(dataset, classes=classes), splits, notes


def _outside(split: MaskSplit, name: str, files: _Counted, num_classes: int) -> list[Problem]:
    ignored = split.zero_ignored
    found = (
        outside_classes(path, name, values.counted, num_classes, zero_ignored=ignored)
        for path, values in files.values_in.items()
    )
    return [problem for problem in found if problem]


def _count_masks(split: MaskSplit, findings: Findings, limit: TimeLimit | None) -> _Counted:
    images = sorted((*split.images, *split.other_images))
    masks = sorted({*split.masks, *split.other_masks})
    mask_of = dict(zip(split.images, split.masks, strict=True))
    pixels, totals, values_in = 0, np.zeros(256, np.int64), {}
    turned: list[Path] = []
    for path, (size, orientation) in read_all(size_and_orientation, images, findings, limit):
        pixels += size[0] * size[1]
        if orientation in SAME_SIZE or (orientation in SIDEWAYS and size[0] == size[1]):
            mask = mask_of.get(path)
            turned += [path] if mask is not None and orientation_or_1(mask) != orientation else []
    findings.notes += turned_within_size(turned, findings.split, "masks are taken to be drawn", "90 or 180")
    image_of = {mask: image for image, mask in mask_of.items()}
    read: Callable[[Path], MaskValues] = lambda mask: values_of(split, mask, image_of.get(mask))  # noqa: E731
    if split.vectors is not None:  # the values are then by image, since a file may have the areas of several
        masks, read = list(split.images), lambda image: values_of(split, mask_of[image], image)
    for path, values in read_all(read, masks, findings, limit, "masks"):
        totals += values.counts if values.own is None else values.own
        values_in[path] = values
    return _Counted(len(images), pixels, totals, values_in)
