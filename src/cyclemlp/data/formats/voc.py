"""PASCAL VOC's annotations, one XML file a picture; http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/.

Coordinates count pixels from 1 and xmax, ymax name the last pixel of the box: a box that fills a picture of 30x20 is
(1, 1, 30, 20). Read as (xmin - 1, ymin - 1, xmax, ymax). Tools that count from 0 are thereby off by one pixel at most.
Objects marked as difficult are regions to ignore, as VOC's own evaluation has it.
"""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from cyclemlp.data.class_names import CLASSES_NAME, ClassesError, read_class_names
from cyclemlp.data.detection import REQUIRED_SPLITS, DetectionDataset, DetectionSplit
from cyclemlp.data.detection_survey import (
    RawObject,
    Survey,
    WrongObjectError,
    folder_of_split,
    header_size,
    make_record,
    missing_split,
    refuse_shared_names,
)
from cyclemlp.data.images import IMAGE_SUFFIXES, list_images
from cyclemlp.data.problems import Problem
from cyclemlp.errors import did_you_mean

LAYOUT = (
    "PASCAL VOC (Annotations/*.xml, JPEGImages/ and ImageSets/Main/{train,val}.txt,"
    " or train/ and val/ with images and .xml side by side)"
)
_OPTIONAL_SPLITS = ("test",)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LISTS = Path("ImageSets") / "Main"


class _Pair(NamedTuple):
    """A picture and its annotation file."""

    image: Path
    annotation: Path


class _Annotation(NamedTuple):
    """What one XML file says."""

    pair: _Pair
    size: tuple[int, int] | None
    """(height, width), where it is noted."""
    objects: list[ET.Element]


class _Parser(ET.TreeBuilder):
    """Refuses document types: their entities can name other files, or unfold a few lines into gigabytes."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:  # noqa: ARG002  (the parser's order)
        """What the XML parser calls before it reads any entity."""
        raise ValueError("has a DOCTYPE, which is not read")


def is_voc_dataset(root: Path) -> bool:
    """Whether `root` looks like this format."""
    return _has_lists(root) or any(_split_folders(root, split) is not None for split in REQUIRED_SPLITS)


def survey_voc(root: Path) -> Survey:
    """What is in `root`, and what is wrong with it."""
    survey = Survey(DetectionDataset(root, (), {}))
    read: dict[str, list[_Annotation]] = {}
    for split in (*REQUIRED_SPLITS, *_OPTIONAL_SPLITS):
        pairs = _listed_pairs(root, split, survey) if _has_lists(root) else _paired(root, split, survey)
        if pairs is not None:
            read[split] = [found for pair in pairs if (found := _read(pair, split, survey.problems))]
    classes = _class_names(root, read.get("train", ()), survey.problems)
    splits = {split: _split(annotations, split, classes, survey) for split, annotations in read.items()}
    survey.dataset = DetectionDataset(root, classes, splits)
    return survey


def _has_lists(root: Path) -> bool:
    return (root / "Annotations").is_dir() and (root / "JPEGImages").is_dir()


def _listed_pairs(root: Path, split: str, survey: Survey) -> list[_Pair] | None:
    """The pairs that a split's list names, in its order; None for a list that may be missing."""
    path = root / _LISTS / f"{split}.txt"
    if not path.is_file():
        if split in REQUIRED_SPLITS:
            survey.problems.append(_missing_list(path, split))
        return None
    found, shared = refuse_shared_names(list_images(root / "JPEGImages"), "")
    survey.problems += shared if split == "train" else []  # once; the folder is that of all splits
    images = {path.stem: path for path in found}
    pairs = []
    for stem in _listed_names(path, split, survey.problems):
        if stem in images:
            pairs.append(_Pair(images[stem], root / "Annotations" / f"{stem}.xml"))
        else:
            fix = f"add the image to {root / 'JPEGImages'} or remove the line"
            survey.problems.append(Problem(path, split, f"lists {stem}, which has no image", fix))
    return pairs


def _listed_names(path: Path, split: str, problems: list[Problem]) -> list[str]:
    """The first word of each line, without the suffix of an image; each name once."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    counts = Counter(_without_image_suffix(line.split()[0]) for line in lines if line.strip())
    problems += [
        Problem(path, split, f"lists {name} {count} times", "keep one of the lines")
        for name, count in counts.items()
        if count > 1
    ]
    if not counts:
        problems.append(Problem(path, split, "lists no images", "write the name of an image on each line"))
    return list(counts)


def _missing_list(path: Path, split: str) -> Problem:
    fix = "write the names of its images there, one a line without suffix"
    if split == "train" and (path.parent / "trainval.txt").is_file():
        fix = "take the lines of trainval.txt that val.txt does not have"
    elif split == "val" and (path.parent / "test.txt").is_file():
        fix = "move about every fifth line of train.txt there, or copy test.txt to validate on the test images"
    return Problem(path, split, "is missing", fix)


def _without_image_suffix(name: str) -> str:
    return Path(name).stem if Path(name).suffix.lower() in IMAGE_SUFFIXES else name


def _split_folders(root: Path, split: str) -> tuple[Path, Path] | None:
    """Folders of a split's pictures and of its XML files, where there are such files."""
    folder = folder_of_split(root, split)
    candidates = (
        (folder, folder),
        (folder / "images", folder / "annotations"),
        (folder / "JPEGImages", folder / "Annotations"),
        (folder_of_split(root / "images", split), folder_of_split(root / "annotations", split)),
    )
    return next((pair for pair in candidates if pair[0].is_dir() and next(pair[1].glob("*.xml"), None)), None)


def _paired(root: Path, split: str, survey: Survey) -> list[_Pair] | None:
    """The pictures of a split that has folders of its own, with the XML files of the same names."""
    folders = _split_folders(root, split)
    if folders is None:
        if split in REQUIRED_SPLITS:
            survey.problems.append(missing_split(root / split, split))
        return None
    found, problems = refuse_shared_names(list_images(folders[0]), split)
    survey.problems += problems
    images = {path.stem: path for path in found}
    for path in sorted(folders[1].glob("*.xml")):
        if path.stem not in images:
            fix = f"add the image to {folders[0]} or remove the file"
            survey.problems.append(Problem(path, split, "has no image", fix))
    return [_Pair(image, folders[1] / f"{stem}.xml") for stem, image in images.items()]


def _read(pair: _Pair, split: str, problems: list[Problem]) -> _Annotation | None:
    path = pair.annotation
    if not path.is_file():
        fix = "add it (without <object>, where there is nothing to find) or remove the image"
        problems.append(Problem(path, split, f"is missing, {pair.image.name} has no annotation", fix))
        return None
    try:
        tree = ET.fromstring(path.read_bytes(), ET.XMLParser(target=_Parser()))
    except ET.ParseError as error:
        problems.append(Problem(path, split, f"is no XML ({error})", "replace it"))
        return None
    except (ValueError, LookupError) as error:  # a DOCTYPE, an unknown encoding
        problems.append(Problem(path, split, str(error), "write plain XML in UTF-8"))
        return None
    if tree.tag != "annotation":
        problems.append(Problem(path, split, f"begins with <{tree.tag}>", "write VOC's <annotation>"))
        return None
    return _Annotation(pair, _noted_size(tree), tree.findall("object"))


def _noted_size(tree: ET.Element) -> tuple[int, int] | None:
    texts = (tree.findtext("size/height", ""), tree.findtext("size/width", ""))
    height, width = (int(text) if text.strip().isdecimal() else 0 for text in texts)
    return (height, width) if height and width else None


def _class_names(root: Path, training: Sequence[_Annotation], problems: list[Problem]) -> tuple[str, ...]:
    """Those of classes.txt, else the names of all training objects, sorted."""
    try:
        listed = read_class_names(root / CLASSES_NAME) if (root / CLASSES_NAME).is_file() else ()
    except ClassesError as error:
        problems.append(Problem(error.path, "", error.what, error.fix))
        listed = ()
    names = {_name_of(item) for annotation in training for item in annotation.objects}
    if not listed and not names - {""} and training:
        problems.append(Problem(root, "train", "has no objects to learn from", "annotate some images"))
    return listed or tuple(sorted(names - {""}))


def _name_of(item: ET.Element) -> str:
    return item.findtext("name", "").strip()


def _split(annotations: Sequence[_Annotation], split: str, classes: tuple[str, ...], survey: Survey) -> DetectionSplit:
    images, records = [], []
    for number, (pair, noted, items) in enumerate(annotations, start=1):
        size = noted or header_size(pair.image, split, survey.problems)
        if size is None:
            continue
        path = pair.annotation
        found = (_object(item, f"object {i}", classes, path, split, survey) for i, item in enumerate(items, start=1))
        record, flaws = make_record(number, size, [item for item in found if item], path, split)
        survey.flaws += flaws
        images.append(pair.image)
        records.append(record)
    return DetectionSplit(tuple(images), tuple(records))


def _object(
    item: ET.Element, number: str, classes: tuple[str, ...], path: Path, split: str, survey: Survey
) -> RawObject | None:
    class_name = _name_of(item)
    name = f"{number} ({class_name})" if class_name else number
    try:
        label = _label(class_name, classes)
        left, top, right, bottom = _corners(item)
    except WrongObjectError as error:
        survey.problems.append(Problem(path, split, f"{name} {error.what}", error.fix))
        return None
    difficult = item.findtext("difficult", "").strip() == "1"
    return RawObject(name, (left - 1, top - 1, right, bottom), label, difficult)


def _label(name: str, classes: tuple[str, ...]) -> int:
    if not name:
        raise WrongObjectError("has no <name>", "name its class")
    if name not in classes:
        fix = f"correct it, annotate some in train, or list all classes in {CLASSES_NAME}.{did_you_mean(name, classes)}"
        raise WrongObjectError("is of a class that train does not have", fix)
    return classes.index(name)


def _corners(item: ET.Element) -> list[float]:
    """As the file has them. `float` also reads "nan", which the check of the box finds."""
    texts = [item.findtext(f"bndbox/{corner}", "").strip() for corner in _CORNERS]
    try:
        return [float(text) for text in texts]
    except ValueError as error:
        given = ", ".join(text or "nothing" for text in texts)
        raise WrongObjectError(f"has the bndbox {given}", f"write numbers as {', '.join(_CORNERS)}") from error
