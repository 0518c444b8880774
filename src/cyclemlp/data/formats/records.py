"""What the formats of object annotations share: how the objects that a file lists become the record of an image."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from cyclemlp.data.formats.misreadings import Misreading, check_outline
from cyclemlp.data.formats.parsed_objects import SLACK, Box, ParsedObject, Size, WrongObjectError, cut_box, show_box
from cyclemlp.data.images import image_size
from cyclemlp.data.objects import DetectionSplit, Record
from cyclemlp.data.outlines import Rle, area_of
from cyclemlp.data.problems import Findings, Problem

Raw = TypeVar("Raw")


@dataclass(frozen=True, eq=False)
class LabelledImage(Generic[Raw]):
    """An image and what an annotation file says about it."""

    image: Path
    file: Path
    objects: Sequence[tuple[str, Raw]]
    """How a message refers to each object, and the object as the file has it."""
    size: Size | None = None
    """(height, width), if the file has it."""
    image_id: int | None = None
    """Counted from 1 if the file has none."""


def read_objects(
    images: Iterable[LabelledImage[Raw]],
    parse: Callable[[Raw, Size], ParsedObject],
    findings: Findings,
    annotations: Path | None = None,
    misread: Sequence[str] = ("",),
) -> DetectionSplit:
    """The split of these images; `parse` makes an object of an image of that size, or raises WrongObjectError.

    Boxes are cut to their image, and objects without area and repeated ones are left out; these are flaws. Images whose
    size cannot be read are problems, as are objects that cannot be parsed, outlines far from their boxes, boxes that
    only make sense as another form of `misread` (names of ways to write them, the right
    one first), and no objects at all.
    """
    paths, records, files = [], [], []
    misreading, before = Misreading(fit_otherwise=[True] * (len(misread) - 1)), len(findings.problems)
    for number, labelled in enumerate(images, start=1):
        size = labelled.size or findings.attempt(image_size, labelled.image)
        if size is not None:
            paths.append(labelled.image)
            files.append(labelled.file)
            image_id = number if labelled.image_id is None else labelled.image_id
            objects = list(_parsed(labelled, size, parse, findings))
            for _, item in objects:
                misreading.add(item, size)
            record = _record(image_id, size, _sound_objects(labelled.file, objects, size, findings))
            records.append(replace(record, size_noted=labelled.size is not None))
    split = DetectionSplit(tuple(paths), tuple(records), annotations)
    if files:
        _check_split(split, annotations or files[0], misreading.what(*misread), findings, before)
        place = annotations or files[0].parent
        findings.notes += [Problem(place, findings.split, *doubt) for doubt in misreading.notes()]
    return split


def _check_split(
    split: DetectionSplit, file: Path, misread: tuple[str, str] | None, findings: Findings, before: int
) -> None:
    """What is wrong with all objects of a split together; there were `before` problems before it was read."""
    if misread is not None:
        findings.add(file, *misread)
    place = file if split.annotations else file.parent
    if findings.split and not any((~record.crowd).any() for record in split.records):
        if findings.split == "train" and len(findings.problems) == before:
            findings.add(place, "has no objects to learn from", "annotate some images")
        elif findings.split != "train":
            fix = "annotate some images of this split"
            findings.notes.append(Problem(place, findings.split, "has no objects, so there is nothing to score", fix))


def _parsed(
    labelled: LabelledImage[Raw], size: Size, parse: Callable[[Raw, Size], ParsedObject], findings: Findings
) -> Iterator[tuple[str, ParsedObject]]:
    """The objects that can be parsed, and how a message refers to each."""
    for name, raw in labelled.objects:
        try:
            item = parse(raw, size)
            check_outline(item, size)
            yield name, item
        except WrongObjectError as error:
            findings.add(labelled.file, f"{name} {error.what}", error.fix)


def _sound_objects(
    file: Path, objects: Sequence[tuple[str, ParsedObject]], size: Size, findings: Findings
) -> list[tuple[ParsedObject, Box]]:
    """The objects and their boxes cut to the image, each once."""
    sound: list[tuple[ParsedObject, Box]] = []
    first: dict[object, str] = {}
    for name, item in objects:
        cut = cut_box(item.box_xyxy, size)
        # As float32, the type they are kept in, a box may be flat that was not before.
        has_area = bool(np.float32(cut[2]) > np.float32(cut[0]) and np.float32(cut[3]) > np.float32(cut[1]))
        wrong = _what_is_wrong(item.box_xyxy, cut, has_area, size)
        fix = "the box is cut to the image" if has_area else "the object is left out"
        if has_area and (known := first.setdefault(_identity(item), name)) != name:
            has_area, wrong, fix = False, f"is the same as {known}", "the object is left out"
        if wrong:
            findings.flaws.append(Problem(file, findings.split, f"{name} {wrong}", f"{fix}; correct or remove it"))
        if has_area:
            sound.append((item, cut))
    return sound


def _identity(item: ParsedObject) -> object:
    """Equal for objects that say the same."""
    outline = item.outline
    parts = outline.counts if isinstance(outline, Rle) else outline and tuple(map(bytes, outline.rings))
    return item.box_xyxy, item.label, item.crowd, parts


def _what_is_wrong(box: Box, cut: Box, has_area: bool, size: Size) -> str | None:
    shown = show_box(box)
    left, top, right, bottom = box
    if not np.isfinite(box).all():
        return f"has the box {shown}, which is not a box"
    if right <= left or bottom <= top:
        return f"has the box {shown} without area"
    if not has_area:
        return f"has the box {shown} outside the image of {size[1]}x{size[0]}"
    if max(abs(before - after) for before, after in zip(box, cut, strict=True)) > SLACK:
        return f"has the box {shown}, partly outside the image of {size[1]}x{size[0]}"
    return None


def _record(image_id: int, size: Size, objects: Sequence[tuple[ParsedObject, Box]]) -> Record:
    items = [item for item, _ in objects]
    boxes_xyxy = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
    of_boxes = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).astype(np.float64).prod(axis=1)
    areas = [_area(item, of_box) for item, of_box in zip(items, of_boxes, strict=True)]
    return Record(
        image_id=image_id,
        size=size,
        boxes_xyxy=boxes_xyxy,
        labels=np.array([item.label for item in items], np.int64),
        crowd=np.array([item.crowd for item in items], np.bool_),
        areas=np.array(areas, np.float64),
        segmentations=tuple(item.outline for item in items),
    )


def _area(item: ParsedObject, of_box: float) -> float:
    """As annotated; otherwise that of the outline, or of the box where there is none."""
    if item.area is not None:
        return item.area
    return of_box if item.outline is None else area_of(item.outline)
