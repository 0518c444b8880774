"""YOLO's labels, a text file per image; https://docs.ultralytics.com/datasets/detect/ and its segment sibling.

Labels are in a folder `labels` if the images are in `images`, otherwise next to the images. An image without a label
file has no objects. What a label file holds is in `yolo_labels`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cyclemlp.data.class_names import CLASSES_NAME, read_class_names, refuse_repeated
from cyclemlp.data.formats.records import (
    AnnotationFile,
    add_missing_split,
    folder_of_split,
    header_size,
    without_shared_names,
)
from cyclemlp.data.formats.registry import OPTIONAL_SPLITS, REQUIRED_SPLITS, DatasetFormat, register
from cyclemlp.data.formats.yolo_labels import LabelRules, read_labels
from cyclemlp.data.images import list_images
from cyclemlp.data.objects import DetectionDataset, DetectionSplit, Record
from cyclemlp.data.problems import FileError, Findings, listed

_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml")


class _Description(NamedTuple):
    """The content of data.yaml."""

    path: Path
    content: dict[str, Any]


@dataclass
class _Listing:
    """The images of a split, and the folders whose images all belong to it."""

    images: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)


def is_yolo_dataset(root: Path) -> bool:
    """Whether `root` looks like this format."""
    return _yaml_path(root) is not None or any(_plain_folder(root, split) is not None for split in REQUIRED_SPLITS)


def read_yolo(root: Path, findings: Findings) -> DetectionDataset:
    """The data set in `root`."""
    try:
        description = _read_description(root)
        names_path = description.path if description else _classes_path(root)
        classes = _names(description) if description else read_class_names(names_path)
    except FileError as error:
        findings.add_error(error, "")
        return DetectionDataset(root, (), {})
    rules = LabelRules(len(classes), names_path.name)
    splits: dict[str, DetectionSplit] = {}
    for split in (*REQUIRED_SPLITS, *OPTIONAL_SPLITS):
        listing = _described(description, root, split, findings) if description else _plain(root, split, findings)
        if listing is not None:
            splits[split] = _read_split(listing, root, split, rules, findings)
    return DetectionDataset(root, classes, splits)


def _yaml_path(root: Path) -> Path | None:
    """The file that describes the data set: one that names its classes and its training images."""
    known = [root / name for name in _YAML_NAMES if (root / name).is_file()]
    others = sorted({*root.glob("*.yaml"), *root.glob("*.yml")} - set(known))
    for path in (*known, *others):
        try:
            content = _load(path)
        except FileError:
            if path in known:  # to be reported
                return path
            continue
        if isinstance(content, dict) and "names" in content and "train" in content:
            return path
    return None


def _load(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileError(path, f"is not YAML ({' '.join(str(error).split())})", "correct it") from error


def _read_description(root: Path) -> _Description | None:
    path = _yaml_path(root)
    return None if path is None else _Description(path, _load(path))


def _names(description: _Description) -> tuple[str, ...]:
    """A list, or a mapping of the numbers from 0 on."""
    path, content = description
    names, count = content["names"], content.get("nc")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise FileError(
                path, f"has names for the classes {listed(list(names))}", "number them 0, 1, 2, ... without a gap"
            )
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise FileError(path, f"has the names {names!r}", "write a list of the classes' names")
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise FileError(path, f"has the class name {name!r}", "write it as text in quotation marks")
    if isinstance(count, int) and count != len(names):
        raise FileError(path, f"says nc: {count}, but has {len(names)} names", "correct one of the two")
    classes = tuple(str(name).strip() for name in names)
    refuse_repeated(path, classes)
    return classes


def _classes_path(root: Path) -> Path:
    """Labelling tools put it next to the labels. Raises FileError if there is none."""
    candidates = [root / CLASSES_NAME, root / "labels" / CLASSES_NAME, root / "labels" / "train" / CLASSES_NAME]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise FileError(candidates[0], "is missing", "name the classes there, one a line, from class 0 on")
    return found


def _described(description: _Description, root: Path, split: str, findings: Findings) -> _Listing | None:
    """The images that data.yaml gives to a split, in folders or listed in text files; None for no such split."""
    path, content = description
    given = content.get("val", content.get("valid")) if split == "val" else content.get(split)
    if not given:
        if split in REQUIRED_SPLITS:
            findings.add(path, split, f"names no {split} images", f"add a line {split}: FOLDER")
        return None
    listing = _Listing()
    for entry in given if isinstance(given, list) else [given]:
        source = _resolve(str(entry), root, str(content.get("path") or ""))
        if source is None:
            if split in REQUIRED_SPLITS:
                what = f"names {entry} for {split}, which is missing"
                findings.add(path, split, what, "correct it; paths begin at its own folder")
            return None
        if source.is_file():
            listing.images += _listed_images(source, split, findings)
        else:
            listing.folders.append(source)
            listing.images += _images_below(source)
    return listing


def _resolve(entry: str, root: Path, base: str) -> Path | None:
    """Below the folder that `path` names or, since that often is a folder of another machine, below `root` itself.

    Exports of Roboflow write ../train/images for what is in train/images.
    """
    candidates = (root / base / entry, root / entry, root / entry.removeprefix("../"))
    return next((path for path in candidates if path.exists()), None)


def _listed_images(path: Path, split: str, findings: Findings) -> list[Path]:
    images = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        image = path.parent / line.strip()
        if line.strip() and image.is_file():
            images.append(image)
        elif line.strip():
            what = f"line {number} names {line.strip()}, which is missing"
            findings.add(path, split, what, "add the image or remove the line")
    return images


def _images_below(folder: Path) -> list[Path]:
    inner = sorted(path for path in folder.rglob("*") if path.is_dir() and not path.name.startswith("."))
    return [image for each in (folder, *inner) for image in list_images(each)]


def _plain_folder(root: Path, split: str) -> Path | None:
    """The folder of a split's images, if there is a folder of labels for it; one that holds images has masks."""
    candidates = (folder_of_split(root / "images", split), folder_of_split(root, split) / "images")
    for folder in candidates:
        labels = _labels_folder(folder, root)
        if folder.is_dir() and labels.is_dir() and not list_images(labels):
            return folder
    return None


def _plain(root: Path, split: str, findings: Findings) -> _Listing | None:
    folder = _plain_folder(root, split)
    if folder is not None:
        return _Listing(list_images(folder), [folder])
    if split in REQUIRED_SPLITS:
        for path in (root / "images" / split, root / "labels" / split):
            if not path.is_dir():
                add_missing_split(path, split, findings)
    return None


def _labels_folder(folder: Path, root: Path) -> Path:
    """The folder of the labels of a folder of images: the last `images` in its path becomes `labels`."""
    parts = list(folder.relative_to(root).parts) if folder.is_relative_to(root) else list(folder.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return root.joinpath(*parts)


def _read_split(listing: _Listing, root: Path, split: str, rules: LabelRules, findings: Findings) -> DetectionSplit:
    images = without_shared_names(listing.images, split, findings)
    label_of = {image: _labels_folder(image.parent, root) / f"{image.stem}.txt" for image in images}
    _add_misplaced(listing, label_of, root, split, findings)
    readable: list[Path] = []
    records: list[Record] = []
    for number, (image, labels) in enumerate(label_of.items(), start=1):
        size = header_size(image, split, findings)
        if size is None:
            continue
        file = AnnotationFile(labels, split, findings)
        records.append(file.record(number, size, read_labels(file, size, rules)))
        readable.append(image)
    return DetectionSplit(tuple(readable), tuple(records))


def _add_misplaced(listing: _Listing, label_of: dict[Path, Path], root: Path, split: str, findings: Findings) -> None:
    """Label files without an image, and a split none of whose images has one."""
    if not label_of:
        where = listing.folders[0] if listing.folders else root
        findings.add(where, split, "has no images", "put .jpg or .png files there")
    elif not any(path.is_file() for path in label_of.values()):
        first = next(iter(label_of.values()))
        findings.add(first.parent, split, "has no label file for any image", f"put {first.name} and the others there")
    else:
        stems = {path.with_suffix("") for path in listing.images}
        known = {_labels_folder(stem.parent, root) / stem.name for stem in stems}
        for path in _label_files([_labels_folder(folder, root) for folder in listing.folders]):
            if path.with_suffix("") not in known:
                findings.add(path, split, "has no image", "add the image or remove the file")


def _label_files(folders: Sequence[Path]) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.txt") if path.name != CLASSES_NAME)


register(
    DatasetFormat(
        "yolo",
        DetectionDataset,
        "YOLO (data.yaml with names, train and val, or images/{train,val} with labels/{train,val} and classes.txt;"
        " a .txt for each image)",
        is_yolo_dataset,
        read_yolo,
    )
)
