"""Data sets of which only some classes are learnt, or several as one: masks, objects and labels alike."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar, cast

import numpy as np

from cyclemlp.data.class_choice import ClassChoice, ClassTable
from cyclemlp.data.datasets import ClassifiedDataset, ClassifiedSplit
from cyclemlp.data.file_reports import Reports, SplitReport
from cyclemlp.data.masks import IGNORE_INDEX, MaskDataset
from cyclemlp.data.objects import ANY_CLASS, DetectionDataset, DetectionSplit, Record
from cyclemlp.data.problems import listed
from cyclemlp.errors import ConfigError, DataError

AnyDataset = MaskDataset | DetectionDataset | ClassifiedDataset
DatasetT = TypeVar("DatasetT")
_OTHERS = "choose other classes"
_logger = logging.getLogger(__name__)


def learnt_classes(dataset: DatasetT, choice: ClassChoice) -> DatasetT:
    """As `with_classes`, for training. Raises DataError where there is nothing to learn the classes from."""
    chosen = with_classes(dataset, choice)
    if choice and isinstance(chosen, DetectionDataset | ClassifiedDataset):
        refuse_absent(chosen)
    return chosen


def with_classes(dataset: DatasetT, choice: ClassChoice) -> DatasetT:
    """The data set with the chosen classes alone; what becomes of the others is written to the log.

    Its masks must name their classes, or be counted. Raises ConfigError for names that are no classes, where too few
    are left, and for a choice of classes of any other data set.
    """
    if not choice:
        return dataset
    if not isinstance(dataset, MaskDataset | DetectionDataset | ClassifiedDataset):
        raise ConfigError("--classes, --ignore-classes and --merge are not for data of this task: leave them out")
    table = table_of(dataset, choice)
    _logger.info("%s: %s", dataset.root, in_words(dataset, choice))
    apply = {MaskDataset: _masks, DetectionDataset: _objects, ClassifiedDataset: _labels}[type(dataset)]
    return cast("Callable[[DatasetT, ClassTable], DatasetT]", apply)(dataset, table)


def refuse_absent(dataset: AnyDataset) -> None:
    """Raise DataError where a split that training needs has nothing of the chosen classes; masks are not looked at."""
    if isinstance(dataset, DetectionDataset):
        if not any((~record.crowd).any() for record in dataset.splits["train"].records):
            raise DataError(f"{dataset.root} has no objects of {listed(dataset.classes, 8)} in train: {_OTHERS}")
    elif isinstance(dataset, ClassifiedDataset):
        labels = set(dataset.splits["train"].labels)
        if absent := [name for number, name in enumerate(dataset.classes) if number not in labels]:
            raise DataError(f"{dataset.root} has no images of {listed(absent, 8)} in train: {_OTHERS}")
        if not dataset.splits["val"].images:
            raise DataError(f"{dataset.root} has no images of {listed(dataset.classes, 8)} in val: {_OTHERS}")


def table_of(dataset: AnyDataset, choice: ClassChoice) -> ClassTable:
    """What becomes of each class of a data set. Raises ConfigError."""
    table = choice.table(dataset.classes)
    if isinstance(dataset, MaskDataset):
        table = table.with_background(dataset.classes)
    least = 1 if isinstance(dataset, DetectionDataset) else 2
    if len(table.classes) < least:
        what = "a network needs two to tell apart" if least == 2 else "nothing is left to learn"
        raise ConfigError(f"--classes, --ignore-classes and --merge leave {len(table.classes)} class: {what}")
    return table


def in_words(dataset: AnyDataset, choice: ClassChoice) -> str:
    """Which classes are learnt, and what becomes of the others, in one line."""
    table, names = table_of(dataset, choice), dataset.classes
    count = "1 class is" if len(table.classes) == 1 else f"{len(table.classes)} classes are"
    words = [f"{count} learnt ({listed(table.classes, 8)})"]
    words += [f"{whole} is {' and '.join(parts)}" for whole, parts in choice.merges()]
    before = choice.table(names).of
    for fate in ("left out", "ignored"):
        gone = [name for name, each in zip(names, before, strict=True) if each == fate and name not in table.classes]
        if gone:
            words.append(f"{_amount(dataset, before, fate)} {listed(gone, 8)} {_becomes(dataset, table, fate)}")
    return "; ".join(words)


def _becomes(dataset: AnyDataset, table: ClassTable, fate: str) -> str:
    if isinstance(dataset, ClassifiedDataset):
        return "are not used"
    if fate == "ignored":
        return "are ignored"
    return f"are {table.classes[0]}" if isinstance(dataset, MaskDataset) else "are background"


def _amount(dataset: AnyDataset, fates: Sequence[int | str], fate: str) -> str:
    """How many objects or images have this fate; pixels are not counted here."""
    if isinstance(dataset, MaskDataset):
        return "pixels of"
    if isinstance(dataset, ClassifiedDataset):
        labels = [label for split in dataset.splits.values() for label in split.labels]
        return f"{sum(fates[label] == fate for label in labels):,} images of"
    records = [record for split in dataset.splits.values() for record in split.records]
    count = sum(fates[int(label)] == fate for record in records for label in record.labels)
    return f"{count:,} objects of"


def _masks(dataset: MaskDataset, table: ClassTable) -> MaskDataset:
    numbers = tuple(fate if isinstance(fate, int) else IGNORE_INDEX for fate in table.of)
    splits = {name: replace(split, class_numbers=numbers) for name, split in dataset.splits.items()}
    return replace(
        dataset,
        classes=table.classes,
        splits=splits,
        named=True,
        data_classes=dataset.classes,
        chosen_from=dataset,
    )


def _objects(dataset: DetectionDataset, table: ClassTable) -> DetectionDataset:
    ids = [dataset.category_ids[table.of.index(number)] for number in range(len(table.classes))]
    splits = {name: _objects_of(split, table) for name, split in dataset.splits.items()}
    return replace(dataset, classes=table.classes, splits=splits, category_ids=tuple(ids), data_classes=dataset.classes)


def _objects_of(split: DetectionSplit, table: ClassTable) -> DetectionSplit:
    # COCO's own file has the other classes, too.
    return replace(split, records=tuple(map(partial(_chosen, table=table), split.records)), annotations=None)


def _chosen(record: Record, table: ClassTable) -> Record:
    """The record without the objects that are left out; ignored ones are regions in which nothing counts."""
    fates = [table.of[int(label)] for label in record.labels]
    ignored = np.array([fate == "ignored" for fate in fates], np.bool_)
    labels = np.array([fate if isinstance(fate, int) else ANY_CLASS for fate in fates], np.int64)
    kept = np.array([fate != "left out" for fate in fates], np.bool_)
    return replace(record, labels=labels, crowd=record.crowd | ignored).select(kept)


def _labels(dataset: ClassifiedDataset, table: ClassTable) -> ClassifiedDataset:
    splits = {name: _labels_of(split, table) for name, split in dataset.splits.items()}
    return replace(dataset, classes=table.classes, splits=splits, data_classes=dataset.classes)


def _labels_of(split: ClassifiedSplit, table: ClassTable) -> ClassifiedSplit:
    pairs = [
        (path, number)
        for path, label in zip(split.images, split.labels, strict=True)
        if isinstance(number := table.of[label], int)
    ]
    return replace(split, images=tuple(path for path, _ in pairs), labels=tuple(number for _, number in pairs))


def reports_of(reports: Reports, before: MaskDataset, choice: ClassChoice) -> Reports:
    """The counts of a data set of masks, whose classes were those of `before`, by the chosen classes."""
    table = table_of(before, choice)
    return {name: _pixels_of(report, table, before.classes) for name, report in reports.items()}


def _pixels_of(report: SplitReport, table: ClassTable, names: Sequence[str]) -> SplitReport:
    counts, ignored = dict.fromkeys(table.classes, 0), report.ignored or 0
    for name, fate in zip(names, table.of, strict=True):
        if isinstance(fate, int):
            counts[table.classes[fate]] += report.of_class[name]
        else:
            ignored += report.of_class[name]
    return replace(report, of_class=counts, ignored=ignored)
