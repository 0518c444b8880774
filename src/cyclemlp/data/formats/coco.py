"""COCO's annotations, in the layout of its archives and in a simple one; https://cocodataset.org/#format-data.

Numbers of classes go from 0 on in the order of the file's category ids, which are kept for results. Only numpy and
Pillow are imported at the top, so that `cyclemlp data` answers without loading torch.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cyclemlp.data.detection import REQUIRED_SPLITS, DetectionDataset, DetectionSplit
from cyclemlp.data.detection_survey import RawObject, Survey, header_size, make_record, missing_split
from cyclemlp.data.instance_masks import parse_outline
from cyclemlp.data.problems import Problem
from cyclemlp.errors import DataError

LAYOUT = (
    "COCO (train.json and val.json with folders train/ and val/, or annotations/instances_train2017.json with"
    " train2017/ and the same for val, or train/_annotations.coco.json and valid/_annotations.coco.json)"
)
_OPTIONAL_SPLITS = ("test",)
_BESIDE_IMAGES = "_annotations.coco.json"
"""Roboflow's exports have it in each split's folder; theirs of validation is called valid."""
_Json = dict[str, Any]


class CocoPaths(NamedTuple):
    """Where a split's annotations and pictures are."""

    annotations: Path
    images: Path


class _File(NamedTuple):
    """The content of an annotation file, its parts known to be lists of objects."""

    path: Path
    images: list[_Json]
    annotations: list[_Json]
    categories: list[_Json]


def is_coco_dataset(root: Path) -> bool:
    """Whether `root` looks like this format."""
    return any(_paths(root, split) is not None for split in REQUIRED_SPLITS)


def survey_coco(root: Path) -> Survey:
    """What is in `root`, and what is wrong with it."""
    survey = Survey(DetectionDataset(root, (), {}))
    files: dict[str, tuple[_File, CocoPaths]] = {}
    for split in (*REQUIRED_SPLITS, *_OPTIONAL_SPLITS):
        paths = _paths(root, split)
        if paths is None:
            if split in REQUIRED_SPLITS:
                survey.problems.append(missing_split(root / f"{split}.json", split))
            continue
        try:
            files[split] = (_read(paths.annotations), paths)
        except DataError as error:
            what, _, fix = str(error).removeprefix(f"{paths.annotations} ").partition("; ")
            survey.problems.append(Problem(paths.annotations, split, what, fix))
    names = _class_names(files, survey.problems)
    splits = {split: _read_split(file, paths, split, list(names), survey) for split, (file, paths) in files.items()}
    survey.dataset = DetectionDataset(root, tuple(names.values()), splits, tuple(names))
    return survey


def _paths(root: Path, split: str) -> CocoPaths | None:
    year = f"{split}2017"
    candidates = (
        CocoPaths(root / f"{split}.json", root / split),
        CocoPaths(root / "annotations" / f"instances_{year}.json", root / year),
        CocoPaths(root / "annotations" / f"instances_{year}.json", root / "images" / year),
        CocoPaths(root / "annotations" / f"instances_{split}.json", root / split),
        CocoPaths(root / "annotations" / f"instances_{split}.json", root / "images" / split),
        *(CocoPaths(folder / _BESIDE_IMAGES, folder) for folder in _own_folders(root, split)),
    )
    present = [paths for paths in candidates if paths.annotations.is_file()]
    return next((paths for paths in present if paths.images.is_dir()), present[0] if present else None)


def _own_folders(root: Path, split: str) -> tuple[Path, ...]:
    return (root / split, root / "valid") if split == "val" else (root / split,)


def _read(path: Path) -> _File:
    """The content of an annotation file. DataError where it is not of COCO's form."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}); replace it") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    parts = []
    for key in ("images", "annotations", "categories"):
        part = content.get(key) if isinstance(content, dict) else None
        if not isinstance(part, list) or not all(isinstance(item, dict) for item in part):
            form = "lists images, annotations and categories"
            raise DataError(f'{path} has no list "{key}" of objects; COCO annotations are one JSON object with {form}')
        parts.append(part)
    return _File(path, *parts)


def _class_names(files: dict[str, tuple[_File, CocoPaths]], problems: list[Problem]) -> dict[int, str]:
    """Category id -> name in the order of the ids, as the training file has them."""
    names: dict[int, str] = {}
    for split, (file, _) in files.items():
        own: dict[int, str] = {}
        for category in file.categories:
            number, name = category.get("id"), category.get("name")
            if not isinstance(number, int) or not isinstance(name, str):
                fix = 'give it a whole number "id" and a text "name"'
                problems.append(Problem(file.path, split, f"has the category {category}", fix))
            elif number in own:
                fix = "give each category a number of its own"
                problems.append(Problem(file.path, split, f"has the category id {number} more than once", fix))
            else:
                own[number] = name
        if repeated := [name for name, count in Counter(own.values()).items() if count > 1]:
            what = f"has the category name {repeated[0]!r} more than once"
            problems.append(Problem(file.path, split, what, "give each category a name of its own"))
        names = names or dict(sorted(own.items()))
        problems += _other_categories(file.path, split, own, names)
    return names


def _other_categories(path: Path, split: str, own: dict[int, str], names: dict[int, str]) -> list[Problem]:
    other = [number for number in own if names.get(number) != own[number]]
    if not other:
        return []
    first = other[0]
    there = f"{names[first]!r}" if first in names else "nothing"
    what = f"calls category {first} {own[first]!r}, the training annotations {there}"
    return [Problem(path, split, what, "use the same categories in all files")]


def _read_split(file: _File, paths: CocoPaths, split: str, ids: Sequence[int], survey: Survey) -> DetectionSplit:
    if not paths.images.is_dir():
        survey.problems.append(missing_split(paths.images, split))
        return DetectionSplit((), (), file.path)
    if not file.images:
        survey.problems.append(Problem(file.path, split, "lists no images", "add them, or use another split"))
    images = _images_by_id(file, split, survey.problems)
    objects = _objects_by_image(file, split, set(images), survey.problems)
    label_of = {number: label for label, number in enumerate(ids)}
    pictures, records = [], []
    for image_id, image in images.items():
        path = paths.images / str(image.get("file_name"))
        size = _size(path, image, split, survey.problems)
        if size is None:
            continue
        raw = [_object(item, size, label_of, file.path, split, survey.problems) for item in objects.get(image_id, ())]
        record, flaws = make_record(image_id, size, [item for item in raw if item], file.path, split)
        survey.flaws += flaws
        pictures.append(path)
        records.append(record)
    return DetectionSplit(tuple(pictures), tuple(records), file.path)


def _images_by_id(file: _File, split: str, problems: list[Problem]) -> dict[int, _Json]:
    images: dict[int, _Json] = {}
    names: set[str] = set()
    for image in file.images:
        number, name = image.get("id"), image.get("file_name")
        if not isinstance(number, int) or not isinstance(name, str):
            fix = 'give it a whole number "id" and a text "file_name"'
            problems.append(Problem(file.path, split, f"has the image {_short(image)}", fix))
            continue
        for known, what in ((number in images, f"id {number}"), (name in names, f"file name {name}")):
            if known:
                problems.append(Problem(file.path, split, f"has the image {what} more than once", "keep one of them"))
        images.setdefault(number, image)
        names.add(name)
    return images


def _objects_by_image(file: _File, split: str, image_ids: set[int], problems: list[Problem]) -> dict[int, list[_Json]]:
    objects: dict[int, list[_Json]] = defaultdict(list)
    counts = Counter(item["id"] for item in file.annotations if isinstance(item.get("id"), int))
    for number, count in counts.items():
        if count > 1:
            fix = "give each annotation a number of its own"
            problems.append(Problem(file.path, split, f"has the annotation id {number} {count} times", fix))
    for item in file.annotations:
        image_id = _number(item, "image_id")
        if image_id in image_ids:
            objects[image_id].append(item)
        else:
            what = f"{_name(item)} belongs to the image id {item.get('image_id')!r}, which is not listed"
            problems.append(Problem(file.path, split, what, "correct it or list the image"))
    return objects


def _size(path: Path, image: _Json, split: str, problems: list[Problem]) -> tuple[int, int] | None:
    """(height, width) as annotated, else as the picture's header has it; None for a picture that is not there."""
    if not path.is_file():
        problems.append(Problem(path, split, "is listed but missing", "add the image or remove its entry"))
        return None
    height, width = image.get("height"), image.get("width")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    return header_size(path, split, problems)


def _object(
    item: _Json, size: tuple[int, int], label_of: dict[int, int], path: Path, split: str, problems: list[Problem]
) -> RawObject | None:
    name = _name(item)
    label = label_of.get(_number(item, "category_id"))
    if label is None:
        what = f"{name} is of category {item.get('category_id')!r}, which is not listed"
        problems.append(Problem(path, split, what, f"correct it to one of {', '.join(map(str, label_of))}"))
        return None
    box = item.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        problems.append(Problem(path, split, f"{name} has the bbox {box!r}", "write [left, top, width, height]"))
        return None
    try:
        outline = parse_outline(item.get("segmentation"), size)
    except ValueError as error:
        problems.append(Problem(path, split, f"{name} has a segmentation that {error}", "correct or remove it"))
        return None
    left, top, width, height = box
    area = item.get("area")
    xyxy = (float(left), float(top), float(left + width), float(top + height))
    crowd = bool(item.get("iscrowd", 0))
    return RawObject(name, xyxy, label, crowd, float(area) if isinstance(area, int | float) else None, outline)


def _number(item: _Json, key: str) -> int:
    """A whole number, or -1 where it is missing or something else (perhaps unhashable)."""
    value = item.get(key)
    return value if isinstance(value, int) else -1


def _name(item: _Json) -> str:
    return f"annotation {item['id']}" if "id" in item else "an annotation without id"


def _short(image: _Json) -> str:
    text = str(image)
    return text if len(text) <= 80 else text[:79] + "…"
