"""COCO's annotations, in the layout of its archives and in a simple one; https://cocodataset.org/#format-data.

Class numbers start at 0, in the order of the file's category ids, which are kept for results. Only numpy and Pillow
are imported at the top, so that `cyclemlp data` answers without loading torch.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cyclemlp.data.formats.records import LabelledImage, ParsedObject, Size, WrongObjectError, read_objects
from cyclemlp.data.formats.registry import DatasetFormat, register
from cyclemlp.data.objects import DetectionDataset, DetectionSplit
from cyclemlp.data.outlines import parse_outline
from cyclemlp.data.problems import REQUIRED_SPLITS, SPLITS, FileError, Findings
from cyclemlp.documents import MAX_ANNOTATION_BYTES, DocumentError, read_json

_LAYOUT = (
    "COCO (train.json and val.json with folders train/ and val/, or annotations/instances_train2017.json with"
    " train2017/ and the same for val, or train/_annotations.coco.json and valid/_annotations.coco.json)"
)
_IN_IMAGE_FOLDER = "_annotations.coco.json"
"""Roboflow's exports have it in each split's folder; theirs of validation is called valid."""
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
    return any(_paths(root, split) is not None for split in REQUIRED_SPLITS)


def read_coco(root: Path, findings: Findings) -> DetectionDataset:
    """The data set in `root`."""
    found = {split: part for split in SPLITS if (part := _find(root, findings.of(split)))}
    names = _class_names(list(found.values()))
    splits = {name: _read_split(split, list(names)) for name, split in found.items()}
    return DetectionDataset(root, tuple(names.values()), splits, tuple(names))


def _find(root: Path, findings: Findings) -> _Split | None:
    paths = _paths(root, findings.split)
    if paths is not None:
        content = findings.attempt(_read, paths[0])
        return None if content is None else _Split(*paths, content, findings)
    if findings.required:
        findings.add_missing(root / f"{findings.split}.json")
    return None


def _paths(root: Path, split: str) -> tuple[Path, Path] | None:
    """A split's annotation file and folder of images, of the layouts that COCO's data sets have."""
    year = f"{split}2017"
    candidates = (
        (root / f"{split}.json", root / split),
        (root / "annotations" / f"instances_{year}.json", root / year),
        (root / "annotations" / f"instances_{year}.json", root / "images" / year),
        (root / "annotations" / f"instances_{split}.json", root / split),
        (root / "annotations" / f"instances_{split}.json", root / "images" / split),
        *((root / name / _IN_IMAGE_FOLDER, root / name) for name in {"val": ("val", "valid")}.get(split, (split,))),
    )
    present = [paths for paths in candidates if paths[0].is_file()]
    return next((paths for paths in present if paths[1].is_dir()), present[0] if present else None)


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
        number, name = category.get("id"), category.get("name")
        if not isinstance(number, int) or not isinstance(name, str):
            split.add(f"has the category {category}", 'give it a whole number "id" and a text "name"')
        elif number in names:
            split.add(f"has the category id {number} more than once", "give each category a number of its own")
        else:
            names[number] = name
    if repeated := [name for name, count in Counter(names.values()).items() if count > 1]:
        split.add(f"has the category name {repeated[0]!r} more than once", "give each category a name of its own")
    return names


def _read_split(split: _Split, ids: Sequence[int]) -> DetectionSplit:
    if not split.folder.is_dir():
        split.findings.add_missing(split.folder)
        return DetectionSplit((), (), split.path)
    label_of = {number: label for label, number in enumerate(ids)}
    return read_objects(_images(split), lambda item, size: _parse(item, size, label_of), split.findings, split.path)


def _images(split: _Split) -> Iterator[LabelledImage[_Json]]:
    if not split.content.images:
        split.add("lists no images", "add them, or use another split")
    listed = _images_by_id(split)
    objects = _objects_by_image(split, set(listed))
    for image_id, image in listed.items():
        path = split.folder / image["file_name"]
        if path.is_file():
            yield LabelledImage(path, split.path, objects[image_id], _size(image), image_id)
        else:
            split.findings.add(path, "is listed but missing", "add the image or remove its entry")


def _images_by_id(split: _Split) -> dict[int, _Json]:
    images: dict[int, _Json] = {}
    names: set[str] = set()
    for image in split.content.images:
        number, name = image.get("id"), image.get("file_name")
        if not isinstance(number, int) or not isinstance(name, str):
            split.add(f"has the image {_short(image)}", 'give it a whole number "id" and a text "file_name"')
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
    counts = Counter(item["id"] for item in annotations if isinstance(item.get("id"), int))
    for number, count in counts.items():
        if count > 1:
            split.add(f"has the annotation id {number} {count} times", "give each annotation a number of its own")
    for item in annotations:
        name = f"annotation {item['id']}" if "id" in item else "an annotation without id"
        image_id = _number(item, "image_id")
        if image_id in image_ids:
            objects[image_id].append((name, item))
        else:
            what = f"{name} belongs to the image id {item.get('image_id')!r}, which is not listed"
            split.add(what, "correct it or list the image")
    return objects


def _size(image: _Json) -> Size | None:
    height, width = image.get("height"), image.get("width")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    return None


def _parse(item: _Json, size: Size, label_of: dict[int, int]) -> ParsedObject:
    """Raises WrongObjectError."""
    label = label_of.get(_number(item, "category_id"))
    if label is None:
        what = f"is of category {item.get('category_id')!r}, which is not listed"
        raise WrongObjectError(what, f"correct it to one of {', '.join(map(str, label_of))}")
    box = item.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        raise WrongObjectError(f"has the bbox {box!r}", "write [left, top, width, height]")
    try:
        outline = parse_outline(item.get("segmentation"), size)
    except ValueError as error:
        raise WrongObjectError(f"has a segmentation {error}", "correct or remove it") from error
    left, top, width, height = box
    area = item.get("area")
    xyxy = (float(left), float(top), float(left + width), float(top + height))
    crowd = bool(item.get("iscrowd", 0))
    return ParsedObject(xyxy, label, crowd, float(area) if isinstance(area, int | float) else None, outline)


def _number(item: _Json, key: str) -> int:
    """A whole number, or -1 where it is missing or something else (perhaps unhashable)."""
    value = item.get(key)
    return value if isinstance(value, int) else -1


def _short(image: _Json) -> str:
    text = str(image)
    return text if len(text) <= 80 else text[:79] + "…"


register(DatasetFormat("coco", DetectionDataset, _LAYOUT, is_coco_dataset, read_coco))
