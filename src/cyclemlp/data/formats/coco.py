"""COCO's annotations, in the layout of its archives and in a simple one; https://cocodataset.org/#format-data.

Class numbers start at 0, in the order of the file's category ids, which are kept for results. Only numpy and Pillow
are imported at the top, so that `cyclemlp data` answers without loading torch.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cyclemlp.data.folders import Folders, files_below, name_key, slashed
from cyclemlp.data.formats.parsed_objects import Box, ParsedObject, Size, WrongObjectError, flag, noted_size
from cyclemlp.data.formats.records import LabelledImage, read_objects
from cyclemlp.data.formats.registry import DatasetFormat, register
from cyclemlp.data.images import IMAGE_SUFFIXES
from cyclemlp.data.objects import DetectionDataset, DetectionSplit
from cyclemlp.data.outlines import parse_outline
from cyclemlp.data.problems import SPLITS, FileError, Findings, Problem, listed
from cyclemlp.data.unused_files import unused_files
from cyclemlp.documents import (
    MAX_ANNOTATION_BYTES,
    MAX_SHOWN,
    DocumentError,
    finite_number,
    read_json,
    shown,
    whole_number,
)

_LAYOUT = (
    "COCO (train.json and val.json with folders train/ and val/, or annotations/instances_train2017.json with"
    " train2017/ and the same for val, or train/_annotations.coco.json and valid/_annotations.coco.json)"
)
_IN_IMAGE_FOLDER = "_annotations.coco.json"
"""Roboflow's exports have it in each split's folder; theirs of validation is called valid."""
_BOX_FORMS = (
    "[left, top, width, height]",
    "[left, top, right, bottom]",
    "[centre x, centre y, width, height]",
    "[top, left, height, width]",
    "[top, left, bottom, right]",
)
"""What a bbox is, and what some tools write instead."""
_Json = dict[str, Any]


class _Content(NamedTuple):
    """The parts of an annotation file, known to be lists of objects."""

    images: list[_Json]
    annotations: list[_Json]
    categories: list[_Json]


class _Split(NamedTuple):
    """An annotation file, the folder of its images, and what it holds."""

    path: Path
    folder: Path
    content: _Content
    findings: Findings

    def add(self, what: str, fix: str) -> None:
        """Add a problem of the annotation file."""
        self.findings.add(self.path, what, fix)


def is_coco_dataset(root: Path) -> bool:
    """Whether `root` looks like this format."""
    return any(_paths(root, split) is not None for split in SPLITS)


def read_coco(root: Path, findings: Findings) -> DetectionDataset:
    """The data set in `root`."""
    found = {split: part for split in SPLITS if (part := _find(root, findings.of(split)))}
    names = _class_names(list(found.values()))
    splits = {name: _read_split(split, list(names), root) for name, split in found.items()}
    _note_unlisted(list(found.values()), {image for split in splits.values() for image in split.images})
    in_folders = (path for part in found.values() for path in files_below(part.folder, IMAGE_SUFFIXES))
    findings.notes += unused_files(root, (*in_folders, *(image for split in splits.values() for image in split.images)))
    return DetectionDataset(root, tuple(names.values()), splits, tuple(names))


def _note_unlisted(splits: Sequence[_Split], listed_images: set[Path]) -> None:
    """Images in the folders of the splits that no annotation file lists."""
    for folder, split in {split.folder: split for split in splits}.items():
        unlisted = [path for path in files_below(folder, IMAGE_SUFFIXES) if path not in listed_images]
        if unlisted and listed_images:
            count = f"{len(unlisted)} images" if unlisted[1:] else "1 image"
            what = f"does not list {count} of {folder} (such as {unlisted[0].name}), which are not used"
            split.findings.notes.append(
                Problem(split.path, split.findings.split, what, "add them, or remove the files")
            )


def _find(root: Path, findings: Findings) -> _Split | None:
    paths = _paths(root, findings.split)
    if paths is not None:
        _note_other_files(root, paths[0], findings)
        content = findings.attempt(_read, paths[0])
        return None if content is None else _Split(*paths, content, findings)
    if findings.required:
        findings.add_missing(root / f"{findings.split}.json")
    return None


def _note_other_files(root: Path, read: Path, findings: Findings) -> None:
    """A note on a second annotation file of a split, since one of them is not what is meant."""
    if others := [path for path, _ in _present(root, findings.split) if path != read]:
        what = f"is not read: the annotations of {findings.split} are {read}"
        findings.notes.append(Problem(others[0], findings.split, what, "remove the file that is not meant"))


def _paths(root: Path, split: str) -> tuple[Path, Path] | None:
    """A split's annotation file and folder of images: of several the first whose folder exists."""
    present = _present(root, split)
    return next((paths for paths in present if paths[1].is_dir()), present[0] if present else None)


def _present(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Annotation files of a split that exist, with their folders, of the layouts that COCO's data sets have."""
    year = f"{split}2017"
    candidates = (
        (root / f"{split}.json", root / split),
        (root / "annotations" / f"instances_{year}.json", root / year),
        (root / "annotations" / f"instances_{year}.json", root / "images" / year),
        (root / "annotations" / f"instances_{split}.json", root / split),
        (root / "annotations" / f"instances_{split}.json", root / "images" / split),
        *((root / name / _IN_IMAGE_FOLDER, root / name) for name in {"val": ("val", "valid")}.get(split, (split,))),
    )
    return [paths for paths in candidates if paths[0].is_file()]


def _read(path: Path) -> _Content:
    """Raises FileError if it does not have COCO's form."""
    try:
        content = read_json(path, MAX_ANNOTATION_BYTES)
    except DocumentError as error:
        raise FileError(path, str(error), error.fix) from error
    parts = []
    for key in _Content._fields:
        part = content.get(key) if isinstance(content, dict) else None
        if not isinstance(part, list) or not all(isinstance(item, dict) for item in part):
            fix = "COCO annotations are one JSON object with lists images, annotations and categories"
            raise FileError(path, f'has no list "{key}" of objects', fix)
        parts.append(part)
    return _Content(*parts)


def _class_names(splits: Sequence[_Split]) -> dict[int, str]:
    """Category id -> name in the order of the ids, as the training file has them."""
    names: dict[int, str] = {}
    for split in splits:
        own = _own_names(split)
        names = names or dict(sorted(own.items()))
        first = next((number for number in own if names.get(number) != own[number]), None)
        if first is not None:
            there = f"{names[first]!r}" if first in names else "nothing"
            what = f"calls category {first} {own[first]!r}, the training annotations {there}"
            split.add(what, "use the same categories in all files")
    return names


def _own_names(split: _Split) -> dict[int, str]:
    names: dict[int, str] = {}
    for category in split.content.categories:
        number, name = whole_number(category.get("id")), category.get("name")
        if number is None or not isinstance(name, str):
            split.add(f"has the category {shown(category)}", 'give it a whole number "id" and a text "name"')
        elif number in names:
            split.add(f"has the category id {number} more than once", "give each category a number of its own")
        else:
            names[number] = name
    if repeated := [name for name, count in Counter(map(name_key, names.values())).items() if count > 1]:
        split.add(f"has the category name {repeated[0]!r} more than once", "give each category a name of its own")
    return names


def _read_split(split: _Split, ids: Sequence[int], root: Path) -> DetectionSplit:
    if not split.folder.is_dir():
        split.findings.add_missing(split.folder)
        return DetectionSplit((), (), split.path)
    label_of = {number: label for label, number in enumerate(ids)}
    parse = partial(_parse, label_of=label_of)
    return read_objects(_images(split, root), parse, split.findings, split.path, _BOX_FORMS)


def _images(split: _Split, root: Path) -> Iterator[LabelledImage[_Json]]:
    if not split.content.images:
        split.add("lists no images", "add them, or use another split")
    listed = _images_by_id(split)
    objects, folders = _objects_by_image(split, set(listed)), Folders()
    seen: dict[Path, str] = {}
    for image_id, image in listed.items():
        name = slashed(image["file_name"])
        path = split.folder / name
        if not split.findings.inside(path, root, name, split.path):
            continue
        found = folders.find(path)
        if found is None and "/" in name and ".." not in name:
            found = folders.find(root / name)  # some write the folder of the split as well
        if found is not None:
            if (first := seen.setdefault(found, name)) != name:
                what = f"lists {shown(first)} and {shown(name)}, which are one image"
                split.add(what, "keep one, with all its objects")
            yield LabelledImage(found, split.path, objects[image_id], _size(image, split), image_id)
        elif len(name) > MAX_SHOWN:
            split.add(f"lists {shown(name)}, which is missing", "add the image or remove its entry")
        else:
            split.findings.add(path, "is listed but missing", "add the image or remove its entry")


def _images_by_id(split: _Split) -> dict[int, _Json]:
    images: dict[int, _Json] = {}
    names: set[str] = set()
    for image in split.content.images:
        number, name = whole_number(image.get("id")), image.get("file_name")
        if number is None or not isinstance(name, str):
            split.add(f"has the image {shown(image)}", 'give it a whole number "id" and a text "file_name"')
            continue
        for known, what in ((number in images, f"id {number}"), (name in names, f"file name {name}")):
            if known:
                split.add(f"has the image {what} more than once", "keep one of them")
        images.setdefault(number, image)
        names.add(name)
    return images


def _objects_by_image(split: _Split, image_ids: set[int]) -> dict[int, list[tuple[str, _Json]]]:
    """The annotations of each image, and how a message refers to each."""
    objects: dict[int, list[tuple[str, _Json]]] = defaultdict(list)
    annotations = split.content.annotations
    counts = Counter(whole_number(item.get("id")) for item in annotations)
    for number, count in counts.items():
        if count > 1 and number is not None:
            split.add(f"has the annotation id {number} {count} times", "give each annotation a number of its own")
    for item in annotations:
        name = f"annotation {shown(item['id'])}" if "id" in item else "an annotation without id"
        image_id = whole_number(item.get("image_id"))
        if image_id is not None and image_id in image_ids:
            objects[image_id].append((name, item))
        else:
            what = f"{name} belongs to the image id {shown(item.get('image_id'))}, which is not listed"
            split.add(what, "correct it or list the image")
    return objects


def _size(image: _Json, split: _Split) -> Size | None:
    """None where the file does not say it; the image then does."""
    try:
        return noted_size(image.get("height"), image.get("width"))
    except WrongObjectError as error:
        split.add(f"image {shown(image['file_name'])} {error.what}", error.fix)
        return None


def _parse(item: _Json, size: Size, label_of: dict[int, int]) -> ParsedObject:
    """Raises WrongObjectError."""
    label = label_of.get(number) if (number := whole_number(item.get("category_id"))) is not None else None
    if label is None:
        what = f"is of category {shown(item.get('category_id'))}, which is not listed"
        raise WrongObjectError(what, f"correct it to one of {listed(list(label_of), 20)}")
    given = item.get("bbox")
    numbers = [finite_number(value) for value in given] if isinstance(given, list) else []
    box = [value for value in numbers if value is not None]
    if len(numbers) != 4 or len(box) != 4:
        raise WrongObjectError(f"has the bbox {shown(given)}", f"write {_BOX_FORMS[0]}")
    try:
        outline = parse_outline(item.get("segmentation"), size)
    except ValueError as error:
        raise WrongObjectError(f"has a segmentation {error}", "correct or remove it") from error
    left, top, width, height = box
    xyxy = (left, top, left + width, top + height)
    # mmdetection and others write "ignore", of which pycocotools takes no notice.
    crowd = flag(item.get("iscrowd"), "iscrowd") | flag(item.get("ignore"), "ignore")
    return ParsedObject(xyxy, label, crowd, _area(item), outline, boxes_misread=_other_readings(*box))


def _other_readings(first: float, second: float, third: float, fourth: float) -> tuple[Box, ...]:
    """The box if its numbers meant the others of `_BOX_FORMS`, in that order."""
    return (
        (first, second, third, fourth),
        (first - third / 2, second - fourth / 2, first + third / 2, second + fourth / 2),
        (second, first, second + fourth, first + third),
        (second, first, fourth, third),
    )


def _area(item: _Json) -> float | None:
    """None where the file does not say it, or writes 0. Raises WrongObjectError."""
    if (given := item.get("area")) is None:
        return None
    area = finite_number(given)
    if area is None or area < 0:
        raise WrongObjectError(f"has the area {shown(given)}", "write the pixels of the object, or remove it")
    return area or None


register(DatasetFormat("coco", DetectionDataset, _LAYOUT, is_coco_dataset, read_coco))
