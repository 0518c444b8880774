"""YOLO's labels, a text file a picture; https://docs.ultralytics.com/datasets/detect/ and its segment sibling.

Labels stand in a folder `labels` where the pictures stand in `images`, else beside them. A picture without a label file
has no objects. What a label file holds is in `yolo_labels`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cyclemlp.data.class_names import CLASSES_NAME, ClassesError, read_class_names, refuse_repeated
from cyclemlp.data.detection import REQUIRED_SPLITS, DetectionDataset, DetectionSplit, Record
from cyclemlp.data.detection_survey import (
    Survey,
    folder_of_split,
    header_size,
    make_record,
    missing_split,
    refuse_shared_names,
)
from cyclemlp.data.formats.yolo_labels import LabelRules, read_labels
from cyclemlp.data.images import list_images
from cyclemlp.data.problems import Problem

LAYOUT = (
    "YOLO (data.yaml with names, train and val, or images/{train,val} with labels/{train,val} and classes.txt;"
    " a .txt for each image)"
)
_OPTIONAL_SPLITS = ("test",)
_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml")


class _Description(NamedTuple):
    """The content of data.yaml."""

    path: Path
    content: dict[str, Any]


@dataclass
class _Listing:
    """The pictures of a split, and the folders whose every picture is one of it."""

    images: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)


def is_yolo_dataset(root: Path) -> bool:
    """Whether `root` looks like this format."""
    return _yaml_path(root) is not None or any(_plain_folder(root, split) is not None for split in REQUIRED_SPLITS)


def survey_yolo(root: Path) -> Survey:
    """What is in `root`, and what is wrong with it."""
    survey = Survey(DetectionDataset(root, (), {}))
    try:
        description = _read_description(root)
        names_path = description.path if description else _classes_path(root)
        classes = _names(description) if description else read_class_names(names_path)
    except ClassesError as error:
        survey.problems.append(Problem(error.path, "", error.what, error.fix))
        return survey
    rules = LabelRules(len(classes), names_path.name)
    splits: dict[str, DetectionSplit] = {}
    for split in (*REQUIRED_SPLITS, *_OPTIONAL_SPLITS):
        listing = _described(description, root, split, survey) if description else _plain(root, split, survey)
        if listing is not None:
            splits[split] = _read_split(listing, root, split, rules, survey)
    survey.dataset = DetectionDataset(root, classes, splits)
    return survey


def _yaml_path(root: Path) -> Path | None:
    """The file that describes the data set: one that names its classes and its training images."""
    known = [root / name for name in _YAML_NAMES if (root / name).is_file()]
    others = sorted({*root.glob("*.yaml"), *root.glob("*.yml")} - set(known))
    for path in (*known, *others):
        try:
            content = _load(path)
        except ClassesError:
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
        raise ClassesError(path, f"is no YAML ({' '.join(str(error).split())})", "correct it") from error


def _read_description(root: Path) -> _Description | None:
    path = _yaml_path(root)
    return None if path is None else _Description(path, _load(path))


def _names(description: _Description) -> tuple[str, ...]:
    """A list, or a mapping of the numbers from 0 on."""
    path, content = description
    names, count = content["names"], content.get("nc")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            given = ", ".join(map(str, list(names)[:5]))
            raise ClassesError(path, f"has names for the classes {given}", "number them 0, 1, 2, ... without a gap")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ClassesError(path, f"has the names {names!r}", "write a list of the classes' names")
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise ClassesError(path, f"has the class name {name!r}", "write it as text in quotation marks")
    if isinstance(count, int) and count != len(names):
        raise ClassesError(path, f"says nc: {count}, but has {len(names)} names", "correct one of the two")
    classes = tuple(str(name).strip() for name in names)
    refuse_repeated(path, classes)
    return classes


def _classes_path(root: Path) -> Path:
    """Labelling tools put it beside the labels. Raises ClassesError where there is none."""
    candidates = [root / CLASSES_NAME, root / "labels" / CLASSES_NAME, root / "labels" / "train" / CLASSES_NAME]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise ClassesError(candidates[0], "is missing", "name the classes there, one a line, from class 0 on")
    return found


def _described(description: _Description, root: Path, split: str, survey: Survey) -> _Listing | None:
    """The pictures that data.yaml gives to a split: of folders, or listed in text files; None for no such split."""
    path, content = description
    given = content.get("val", content.get("valid")) if split == "val" else content.get(split)
    if not given:
        if split in REQUIRED_SPLITS:
            survey.problems.append(Problem(path, split, f"names no {split} images", f"add a line {split}: FOLDER"))
        return None
    listing = _Listing()
    for entry in given if isinstance(given, list) else [given]:
        source = _resolve(str(entry), root, str(content.get("path") or ""))
        if source is None:
            if split in REQUIRED_SPLITS:
                what = f"names {entry} for {split}, which is missing"
                survey.problems.append(Problem(path, split, what, "correct it; paths begin at its own folder"))
            return None
        if source.is_file():
            listing.images += _listed_images(source, split, survey.problems)
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


def _listed_images(path: Path, split: str, problems: list[Problem]) -> list[Path]:
    images = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        image = path.parent / line.strip()
        if line.strip() and image.is_file():
            images.append(image)
        elif line.strip():
            fix = "add the image or remove the line"
            problems.append(Problem(path, split, f"line {number} names {line.strip()}, which is missing", fix))
    return images


def _images_below(folder: Path) -> list[Path]:
    inner = sorted(path for path in folder.rglob("*") if path.is_dir() and not path.name.startswith("."))
    return [image for each in (folder, *inner) for image in list_images(each)]


def _plain_folder(root: Path, split: str) -> Path | None:
    """The folder of a split's pictures, where there is one of labels that are no pictures (masks) to it."""
    candidates = (folder_of_split(root / "images", split), folder_of_split(root, split) / "images")
    for folder in candidates:
        labels = _labels_folder(folder, root)
        if folder.is_dir() and labels.is_dir() and not list_images(labels):
            return folder
    return None


def _plain(root: Path, split: str, survey: Survey) -> _Listing | None:
    folder = _plain_folder(root, split)
    if folder is not None:
        return _Listing(list_images(folder), [folder])
    if split in REQUIRED_SPLITS:
        survey.problems += [
            missing_split(path, split)
            for path in (root / "images" / split, root / "labels" / split)
            if not path.is_dir()
        ]
    return None


def _labels_folder(folder: Path, root: Path) -> Path:
    """The folder of the labels to a folder of pictures: the last `images` in its path becomes `labels`."""
    parts = list(folder.relative_to(root).parts) if folder.is_relative_to(root) else list(folder.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return root.joinpath(*parts)


def _read_split(listing: _Listing, root: Path, split: str, rules: LabelRules, survey: Survey) -> DetectionSplit:
    images, problems = refuse_shared_names(listing.images, split)
    survey.problems += problems
    label_of = {image: _labels_folder(image.parent, root) / f"{image.stem}.txt" for image in images}
    survey.problems += _misplaced(listing, label_of, root, split)
    pictures: list[Path] = []
    records: list[Record] = []
    for number, (image, labels) in enumerate(label_of.items(), start=1):
        size = header_size(image, split, survey.problems)
        if size is None:
            continue
        objects, problems = read_labels(labels, size, rules, split)
        record, flaws = make_record(number, size, objects, labels, split)
        survey.problems += problems
        survey.flaws += flaws
        pictures.append(image)
        records.append(record)
    return DetectionSplit(tuple(pictures), tuple(records))


def _misplaced(listing: _Listing, label_of: dict[Path, Path], root: Path, split: str) -> list[Problem]:
    """Label files without a picture, and a split none of whose pictures has one."""
    if not label_of:
        where = listing.folders[0] if listing.folders else root
        return [Problem(where, split, "has no images", "put .jpg or .png files there")]
    if not any(path.is_file() for path in label_of.values()):
        first = next(iter(label_of.values()))
        return [
            Problem(first.parent, split, "has no label file for any image", f"put {first.name} and the others there")
        ]
    stems = {path.with_suffix("") for path in listing.images}
    known = {_labels_folder(stem.parent, root) / stem.name for stem in stems}
    return _without_image([_labels_folder(folder, root) for folder in listing.folders], known, split)


def _without_image(folders: Sequence[Path], known: set[Path], split: str) -> list[Problem]:
    paths = sorted(path for folder in folders for path in folder.rglob("*.txt") if path.name != CLASSES_NAME)
    orphans = [path for path in paths if path.with_suffix("") not in known]
    return [Problem(path, split, "has no image", "add the image or remove the file") for path in orphans]
