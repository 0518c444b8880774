"""YOLO's labels, a text file per image; https://docs.ultralytics.com/datasets/detect/ and its segment sibling.

Labels are in a folder `labels` if the images are in `images`, otherwise next to the images. An image without a label
file has no objects. A label file has a line for each object, `class cx cy width height` or, for an outline whose box is
the smallest around it, `class x1 y1 x2 y2 x3 y3 ...`: lengths are shares of the image's width and height, positions are
relative to its upper left corner. Keypoints after a box, whose number data.yaml has as `kpt_shape`, are not used.
Oriented boxes are read as outlines of four corners.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cyclemlp.data.folders import Folders, exists, files_below, may_read, name_key, other_files
from cyclemlp.data.formats.layout import (
    CLASSES_NAME,
    YAML_NAMES,
    described_names,
    folder_of_split,
    paired,
    read_class_names,
    read_lines,
    refuse_other_numbers,
)
from cyclemlp.data.formats.parsed_objects import ParsedObject, Size, WrongObjectError
from cyclemlp.data.formats.point_rows import are_oriented, keypoint_shape
from cyclemlp.data.formats.records import LabelledImage, read_objects
from cyclemlp.data.formats.registry import DatasetFormat, register
from cyclemlp.data.images import IMAGE_SUFFIXES, list_images
from cyclemlp.data.objects import DetectionDataset, DetectionSplit
from cyclemlp.data.outlines import Polygons
from cyclemlp.data.problems import SPLITS, FileError, Findings, Problem, listed
from cyclemlp.data.unused_files import unused_files
from cyclemlp.documents import DocumentError, read_yaml, shown, whole_number

_LAYOUT = (
    "YOLO (data.yaml with names, train and val, or images/{train,val} with labels/{train,val} and classes.txt;"
    " a .txt for each image)"
)
_NOT_LABELS = frozenset({".txt", ".cache", ".npy", *IMAGE_SUFFIXES})
"""Suffixes of labels, of what training tools keep next to them, and of images, which may be in the same folder."""
_BOX_VALUES = 5
_BOX_FORMS = ("class cx cy width height", "class x1 y1 x2 y2", "class left top width height")
"""What a line of five values is, and what some tools write instead."""
_MIN_OUTLINE_VALUES = 7
_MEANT = ("names", *SPLITS, "valid")
"""What data.yaml says of classes and images."""
# Shares written with few digits may lie a little beyond the edge; the box is then cut to the image.
_SLACK = 0.01


class _Description(NamedTuple):
    """The content of data.yaml."""

    path: Path
    content: dict[str, Any]


class _Listing(NamedTuple):
    """The images of a split, and the folders whose images all belong to it."""

    images: list[Path]
    folders: list[Path]


def is_yolo_dataset(root: Path) -> bool:
    """Whether `root` looks like this format."""
    try:
        described = _description(root) is not None
    except FileError:
        described = True  # to be reported
    return described or any(_plain_folder(root, split) is not None for split in SPLITS)


def read_yolo(root: Path, findings: Findings) -> DetectionDataset:
    """The data set in `root`."""
    try:
        description = _description(root)
        path = description.path if description else _classes_path(root)
        names = described_names(*description) if description else read_class_names(path)
        if description is None:
            refuse_other_numbers(path, names)
        keypoints = _keypoint_values(description) if description else 0
    except FileError as error:
        findings.add_error(error)
        return DetectionDataset(root, (), {})
    if description is not None:
        _note_other_descriptions(description, root, findings)
    parse = partial(_parse, num_classes=len(names), names_file=path.name, keypoint_values=keypoints)
    splits = {}
    images: set[Path] = set()
    label_folders = [root, root / "labels"]
    for about in map(findings.of, SPLITS):
        listing = _described(description, root, about) if description else _plain(root, about)
        if listing is not None:
            images.update(listing.images)
            label_folders += [_labels_folder(folder, root) for folder in listing.folders]
            splits[about.split] = read_objects(_labelled(listing, root, about), parse, about, misread=_BOX_FORMS)
    findings.notes += unused_files(root, images)
    _refuse_other_names(path, names, label_folders, findings)
    _check_points(path, splits, findings, with_keypoints=keypoints > 0)
    return DetectionDataset(root, names, splits)


def _check_points(
    path: Path, splits: Mapping[str, DetectionSplit], findings: Findings, *, with_keypoints: bool
) -> None:
    """Add what is wrong with rows of points that are no outlines."""
    for name, split in splits.items() if not with_keypoints else ():
        if (shape := keypoint_shape(split)) is not None:
            what = f"has no kpt_shape, but the rows of {name} are boxes with {shape[0]} keypoints each, and no outlines"
            findings.of(name).add(path, what, f"add kpt_shape: {list(shape)} to data.yaml; the keypoints are not used")
    if all(map(are_oriented, splits.values())) and splits:
        what = "has oriented boxes: the upright box around each is used, and for instance segmentation their corners"
        findings.notes.append(Problem(path, "", what, "no network here predicts angles"))


def _note_other_descriptions(description: _Description, root: Path, findings: Findings) -> None:
    """A note on a second file that describes other classes or other images, since one of them is not what is meant."""
    with suppress(FileError):  # a damaged file next to a sound one
        for path, content in _descriptions(root):
            if keys := [key for key in _MEANT if _as_list(content.get(key)) != _as_list(description.content.get(key))]:
                what = f"is not read, and has other {listed(keys)} than {description.path.name}, which is"
                findings.notes.append(Problem(path, "", what, "remove the one that is not meant"))


def _as_list(value: object) -> object:
    """The same for names with their numbers and without."""
    return list(value.values()) if isinstance(value, dict) else value


def _refuse_other_names(path: Path, names: Sequence[str], folders: Iterable[Path], findings: Findings) -> None:
    """Add a problem for a classes.txt next to labels by which their numbers are other classes than in `path`.

    labelImg writes one into each folder, in an order of its own. A longer list of the same order is no contradiction.
    """
    for other in dict.fromkeys(folder / CLASSES_NAME for folder in folders):
        others = findings.attempt(read_class_names, other) if other != path and other.is_file() else None
        for number, pair in enumerate(zip(names, others or (), strict=False)):
            if name_key(pair[0]).casefold() != name_key(pair[1]).casefold():
                what = f"calls class {number} {pair[1]!r}, {path} calls it {pair[0]!r}"
                findings.add(other, what, "make the two equal, and correct the labels of the one that is wrong")
                break


def _keypoint_values(description: _Description) -> int:
    """How many values of keypoints follow each box. Raises FileError."""
    path, content = description
    if (shape := content.get("kpt_shape")) is None:
        return 0
    numbers = [whole_number(each) for each in shape] if isinstance(shape, list) else []
    count, values = numbers if len(numbers) == 2 else (None, None)
    if count is None or count < 1 or values not in (2, 3):
        raise FileError(path, f"has the kpt_shape {shown(shape)}", "write [number of keypoints, 2 or 3 values of each]")
    return count * values


def _description(root: Path) -> _Description | None:
    """The file that names the classes and the training images. Raises FileError for a usual name that is no YAML."""
    return next(_descriptions(root), None)


def _descriptions(root: Path) -> Iterator[_Description]:
    """All such files, usual names first. Raises as `_description`."""
    known = [root / name for name in YAML_NAMES if (root / name).is_file()]
    for path in (*known, *sorted({*root.glob("*.yaml"), *root.glob("*.yml")} - set(known))):
        try:
            content = read_yaml(path)
        except DocumentError as error:
            if path in known:
                raise FileError(path, str(error), "correct it") from error
            continue
        if isinstance(content, dict) and "names" in content and not content.keys().isdisjoint((*SPLITS, "valid")):
            yield _Description(path, content)


def _classes_path(root: Path) -> Path:
    """Labelling tools put it next to the labels. Raises FileError if there is none."""
    folders = (root, root / "labels", folder_of_split(root / "labels", "train"))
    candidates = [folder / CLASSES_NAME for folder in folders]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise FileError(candidates[0], "is missing", "name the classes there, one a line, from class 0 on")
    return found


def _described(description: _Description, root: Path, findings: Findings) -> _Listing | None:
    """The images that data.yaml gives to a split, in folders or listed in text files; None for no such split."""
    (path, content), split = description, findings.split
    given = content.get("val", content.get("valid")) if split == "val" else content.get(split)
    if not given:
        if findings.required:
            findings.add(path, f"names no {split} images", f"add a line {split}: FOLDER")
        return None
    listing = _Listing([], [])
    for entry in given if isinstance(given, list) else [given]:
        candidates = _candidates(str(entry), root, str(content.get("path") or ""))
        inside = [source for source in candidates if may_read(source, root)]
        source = next(filter(exists, inside), None)
        if source is None:
            name = shown(entry).strip("'")
            outside = next((each for each in candidates if each not in inside and exists(each)), None)
            if outside is not None:
                findings.inside(outside, root, str(entry), path)
            elif findings.required:
                what = f"names {name} for {split}, which is missing"
                findings.add(path, what, "correct it; paths begin at its own folder")
            return None
        if source.is_file():
            listing.images.extend(_listed_images(source, root, findings))
        else:
            listing.folders.append(source)
            listing.images.extend(_images_below(source))
    return listing


def _candidates(entry: str, root: Path, base: str) -> list[Path]:
    """Below the folder that `path` names or, since that often is a folder of another machine, below `root` itself.

    Exports of Roboflow write ../train/images for what is in train/images.
    """
    return [root / base / entry, root / entry, root / entry.removeprefix("../")]


def _listed_images(path: Path, root: Path, findings: Findings) -> list[Path]:
    images, folders = [], Folders()
    for number, line in _filled_lines(path):
        name = line.strip()
        if not findings.inside(path.parent / name, root, name, path):
            continue
        if (image := folders.find(path.parent / name)) is not None:
            images.append(image)
        else:
            name = shown(name).strip("'")
            findings.add(path, f"line {number} names {name}, which is missing", "add the image or remove the line")
    return images


def _filled_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not blank, and their numbers. Raises FileError."""
    return ((number, line) for number, line in enumerate(read_lines(path), start=1) if line.strip())


def _images_below(folder: Path) -> list[Path]:
    folders = sorted({path.parent for path in files_below(folder, IMAGE_SUFFIXES)})
    return [image for each in folders for image in list_images(each)]


def _plain_folder(root: Path, split: str) -> Path | None:
    """The folder of a split's images, if there is a folder of labels for it; one that holds images has masks."""
    candidates = (folder_of_split(root / "images", split), folder_of_split(root, split) / "images")
    for folder in candidates:
        labels = _labels_folder(folder, root)
        if folder.is_dir() and labels.is_dir() and not list_images(labels):
            return folder
    return None


def _plain(root: Path, findings: Findings) -> _Listing | None:
    folder = _plain_folder(root, findings.split)
    if folder is not None:
        return _Listing(_images_below(folder), [folder])
    for path in (root / "images" / findings.split, root / "labels" / findings.split):
        if findings.required and not path.is_dir():
            findings.add_missing(path)
    return None


def _labels_folder(folder: Path, root: Path) -> Path:
    """The folder of the labels of a folder of images: the last `images` in its path becomes `labels`."""
    parts = list(folder.relative_to(root).parts) if folder.is_relative_to(root) else list(folder.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return root.joinpath(*parts)


def _labelled(listing: _Listing, root: Path, findings: Findings) -> Iterator[LabelledImage[str]]:
    """The images of a split and the lines of their label files."""
    label_of = {image: _labels_folder(image.parent, root) / f"{image.stem}.txt" for image in listing.images}
    written: list[Path] = []
    if not label_of:
        where = listing.folders[0] if listing.folders else root
        findings.add(where, "has no images", "put .jpg or .png files there")
    elif not any(map(Folders().find, label_of.values())):
        first = next(iter(label_of.values()))
        findings.add(first.parent, "has no label file for any image", f"put {first.name} and the others there")
    else:
        folders = [_labels_folder(folder, root) for folder in listing.folders]
        written = [path for folder in folders for path in files_below(folder, (".txt",))]
        _note_unused(folders, findings)
    pairs = paired(label_of, [path for path in written if path.name != CLASSES_NAME], findings)
    _note_unlabelled([image for image, labels in pairs.items() if not labels.is_file()], len(pairs), findings)
    for image, labels in pairs.items():
        lines = findings.attempt(lambda path: list(_filled_lines(path)), labels) if labels.is_file() else None
        yield LabelledImage(image, labels, [(f"line {number}", line) for number, line in lines or ()])


def _note_unlabelled(images: Sequence[Path], total: int, findings: Findings) -> None:
    """Empty images have no label file in this format, and neither have those whose labels were lost."""
    if 0 < len(images) < total:
        some = f"{len(images)} of {total} images without a label file (such as {images[0].name})"
        fix = "add what is missing; an empty label file says that there is nothing to find"
        findings.notes.append(Problem(images[0].parent, findings.split, f"has {some}, which counts as no objects", fix))


def _note_unused(folders: Iterable[Path], findings: Findings) -> None:
    for folder in folders:
        if unused := other_files(folder, _NOT_LABELS):
            count = f"{len(unused)} files" if unused[1:] else "1 file"
            what = f"has {count} that are not .txt (such as {unused[0].name}), which are not used"
            findings.notes.append(Problem(folder, findings.split, what, "convert or remove them"))


def _parse(line: str, size: Size, num_classes: int, names_file: str, keypoint_values: int) -> ParsedObject:
    """Raises WrongObjectError."""
    label, *values = _numbers(line, keypoint_values)
    if label < 0 or not label.is_integer():
        raise WrongObjectError(f"has the class {label:g}", "write a whole number from 0 on")
    if label >= num_classes:
        fix = f"correct it, or name the class in {names_file}"
        raise WrongObjectError(f"has the class {label:.0f}, the names go from 0 to {num_classes - 1}", fix)
    wrong = [value for value in values if not -_SLACK <= value <= 1 + _SLACK]
    if wrong:
        fix = "write shares of the image's width and height"
        raise WrongObjectError(f"has the value {wrong[0]:g}, outside 0 to 1", fix)
    height, width = size
    if len(values) == _BOX_VALUES - 1:
        cx, cy, w, h = values
        box = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
        as_corners = (cx * width, cy * height, w * width, h * height)
        from_corner = (cx * width, cy * height, (cx + w) * width, (cy + h) * height)
        return ParsedObject(box, int(label), boxes_misread=(as_corners, from_corner))
    points = np.array(values).reshape(-1, 2) * (width, height)
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return ParsedObject((left, top, right, bottom), int(label), outline=Polygons((points.ravel(),)))


def _numbers(line: str, keypoint_values: int) -> list[float]:
    """Those of a box or an outline, after the class; keypoints are checked and left out."""
    fields = line.split()
    values = "1 value" if len(fields) == 1 else f"{len(fields)} values"
    if keypoint_values and len(fields) not in (_BOX_VALUES, _BOX_VALUES + keypoint_values):
        fix = f"write class cx cy width height and the {keypoint_values} values that kpt_shape in data.yaml says"
        raise WrongObjectError(f"has {values}", fix)
    if (
        not keypoint_values
        and len(fields) != _BOX_VALUES
        and (len(fields) < _MIN_OUTLINE_VALUES or len(fields) % 2 == 0)
    ):
        fix = "write class cx cy width height, or class and three or more points x y"
        fix += "; for keypoints give kpt_shape in data.yaml" if len(fields) > _MIN_OUTLINE_VALUES else ""
        raise WrongObjectError(f"has {values}", fix)
    numbers = []
    for text in fields:
        try:
            numbers.append(float(text))
        except ValueError as error:
            what = f"has {shown(text)}, which is not a number"
            raise WrongObjectError(what, "correct or remove the line") from error
        if not math.isfinite(numbers[-1]):
            what = f"has {shown(text)}, which is not a finite number"
            raise WrongObjectError(what, "correct or remove the line")
    return numbers[:_BOX_VALUES] if keypoint_values else numbers


register(DatasetFormat("yolo", DetectionDataset, _LAYOUT, is_yolo_dataset, read_yolo))
