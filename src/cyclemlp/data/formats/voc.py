"""PASCAL VOC's annotations, one XML file per image; http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/.

Coordinates count pixels from 1, and xmax, ymax name the last pixel of the box: a box that fills an image of 30x20 is
(1, 1, 30, 20). It is read as (xmin - 1, ymin - 1, xmax, ymax), which is off by at most one pixel for tools that count
from 0. Objects marked as difficult are regions to ignore, as in VOC's own evaluation.
"""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from cyclemlp.data.class_names import CLASSES_NAME, read_class_names
from cyclemlp.data.formats.records import (
    AnnotationFile,
    RawObject,
    WrongObjectError,
    add_missing_split,
    folder_of_split,
    header_size,
    without_shared_names,
)
from cyclemlp.data.formats.registry import OPTIONAL_SPLITS, REQUIRED_SPLITS, DatasetFormat, register
from cyclemlp.data.images import IMAGE_SUFFIXES, list_images
from cyclemlp.data.objects import DetectionDataset, DetectionSplit
from cyclemlp.data.problems import FileError, Findings
from cyclemlp.errors import did_you_mean

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LISTS = Path("ImageSets") / "Main"


_Pair = tuple[Path, Path]
"""An image and its annotation file."""


class _Annotation(NamedTuple):
    """What one XML file says about an image."""

    image: Path
    path: Path
    size: tuple[int, int] | None
    """(height, width), if the file has it."""
    objects: list[ET.Element]


class _Parser(ET.TreeBuilder):
    """Refuses document types: their entities can name other files, or expand a few lines into gigabytes."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:  # noqa: ARG002  (the parser's order)
        """Called by the XML parser before it reads any entity."""
        raise ValueError("has a DOCTYPE, which is not read")


def is_voc_dataset(root: Path) -> bool:
    """Whether `root` looks like this format."""
    return _has_lists(root) or any(_split_folders(root, split) is not None for split in REQUIRED_SPLITS)


def read_voc(root: Path, findings: Findings) -> DetectionDataset:
    """The data set in `root`."""
    read: dict[str, list[_Annotation]] = {}
    for split in (*REQUIRED_SPLITS, *OPTIONAL_SPLITS):
        pairs = _listed_pairs(root, split, findings) if _has_lists(root) else _paired(root, split, findings)
        if pairs is not None:
            read[split] = [found for pair in pairs if (found := _read(*pair, split, findings))]
    classes = _class_names(root, read.get("train", ()), findings)
    splits = {split: _split(annotations, split, classes, findings) for split, annotations in read.items()}
    return DetectionDataset(root, classes, splits)


def _has_lists(root: Path) -> bool:
    return (root / "Annotations").is_dir() and (root / "JPEGImages").is_dir()


def _listed_pairs(root: Path, split: str, findings: Findings) -> list[_Pair] | None:
    """The pairs that a split's list names, in its order; None for a list that may be missing."""
    path = root / _LISTS / f"{split}.txt"
    if not path.is_file():
        if split in REQUIRED_SPLITS:
            findings.add(path, split, "is missing", _fix_of_missing_list(path, split))
        return None
    # The folder is that of all splits: its problems are reported once.
    reported = findings if split == "train" else Findings()
    images = {image.stem: image for image in without_shared_names(list_images(root / "JPEGImages"), "", reported)}
    pairs = []
    for stem in _listed_names(path, split, findings):
        if stem in images:
            pairs.append((images[stem], root / "Annotations" / f"{stem}.xml"))
        else:
            fix = f"add the image to {root / 'JPEGImages'} or remove the line"
            findings.add(path, split, f"lists {stem}, which has no image", fix)
    return pairs


def _listed_names(path: Path, split: str, findings: Findings) -> list[str]:
    """The first word of each line, without the suffix of an image; each name once."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    counts = Counter(_without_image_suffix(line.split()[0]) for line in lines if line.strip())
    for name, count in counts.items():
        if count > 1:
            findings.add(path, split, f"lists {name} {count} times", "keep one of the lines")
    if not counts:
        findings.add(path, split, "lists no images", "write the name of an image on each line")
    return list(counts)


def _fix_of_missing_list(path: Path, split: str) -> str:
    if split == "train" and (path.parent / "trainval.txt").is_file():
        return "take the lines of trainval.txt that val.txt does not have"
    if split == "val" and (path.parent / "test.txt").is_file():
        return "move about every fifth line of train.txt there, or copy test.txt to validate on the test images"
    return "write the names of its images there, one a line without suffix"


def _without_image_suffix(name: str) -> str:
    return Path(name).stem if Path(name).suffix.lower() in IMAGE_SUFFIXES else name


def _split_folders(root: Path, split: str) -> tuple[Path, Path] | None:
    """Folders of a split's images and of its XML files; None without any such file."""
    folder = folder_of_split(root, split)
    candidates = (
        (folder, folder),
        (folder / "images", folder / "annotations"),
        (folder / "JPEGImages", folder / "Annotations"),
        (folder_of_split(root / "images", split), folder_of_split(root / "annotations", split)),
    )
    return next((pair for pair in candidates if pair[0].is_dir() and next(pair[1].glob("*.xml"), None)), None)


def _paired(root: Path, split: str, findings: Findings) -> list[_Pair] | None:
    """The images of a split that has folders of its own, with the XML files of the same names."""
    folders = _split_folders(root, split)
    if folders is None:
        if split in REQUIRED_SPLITS:
            add_missing_split(root / split, split, findings)
        return None
    images = {path.stem: path for path in without_shared_names(list_images(folders[0]), split, findings)}
    for path in sorted(folders[1].glob("*.xml")):
        if path.stem not in images:
            findings.add(path, split, "has no image", f"add the image to {folders[0]} or remove the file")
    return [(image, folders[1] / f"{stem}.xml") for stem, image in images.items()]


def _read(image: Path, path: Path, split: str, findings: Findings) -> _Annotation | None:
    file = AnnotationFile(path, split, findings)
    if not path.is_file():
        fix = "add it (without <object>, if there is nothing to find) or remove the image"
        file.add(f"is missing, so {image.name} has no annotation", fix)
        return None
    try:
        tree = ET.fromstring(path.read_bytes(), ET.XMLParser(target=_Parser()))
    except ET.ParseError as error:
        file.add(f"is not XML ({error})", "replace it")
        return None
    except (ValueError, LookupError) as error:  # a DOCTYPE, an unknown encoding
        file.add(str(error), "write plain XML in UTF-8")
        return None
    if tree.tag != "annotation":
        file.add(f"begins with <{tree.tag}>", "write VOC's <annotation>")
        return None
    return _Annotation(image, path, _noted_size(tree), tree.findall("object"))


def _noted_size(tree: ET.Element) -> tuple[int, int] | None:
    texts = (tree.findtext("size/height", ""), tree.findtext("size/width", ""))
    height, width = (int(text) if text.strip().isdecimal() else 0 for text in texts)
    return (height, width) if height and width else None


def _class_names(root: Path, training: Sequence[_Annotation], findings: Findings) -> tuple[str, ...]:
    """Those of classes.txt, otherwise the names of all training objects, sorted."""
    listed: tuple[str, ...] = ()
    try:
        listed = read_class_names(root / CLASSES_NAME) if (root / CLASSES_NAME).is_file() else ()
    except FileError as error:
        findings.add_error(error, "")
    names = {_name_of(item) for annotation in training for item in annotation.objects}
    if not listed and not names - {""} and training:
        findings.add(root, "train", "has no objects to learn from", "annotate some images")
    return listed or tuple(sorted(names - {""}))


def _name_of(item: ET.Element) -> str:
    return item.findtext("name", "").strip()


def _split(
    annotations: Sequence[_Annotation], split: str, classes: tuple[str, ...], findings: Findings
) -> DetectionSplit:
    images, records = [], []
    for number, (image, path, noted, items) in enumerate(annotations, start=1):
        size = noted or header_size(image, split, findings)
        if size is None:
            continue
        file = AnnotationFile(path, split, findings)
        found = (_object(item, f"object {i}", classes, file) for i, item in enumerate(items, start=1))
        records.append(file.record(number, size, [item for item in found if item]))
        images.append(image)
    return DetectionSplit(tuple(images), tuple(records))


def _object(item: ET.Element, number: str, classes: tuple[str, ...], file: AnnotationFile) -> RawObject | None:
    class_name = _name_of(item)
    name = f"{number} ({class_name})" if class_name else number
    try:
        label = _label(class_name, classes)
        left, top, right, bottom = _corners(item)
    except WrongObjectError as error:
        file.add(f"{name} {error.what}", error.fix)
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


register(
    DatasetFormat(
        "voc",
        DetectionDataset,
        "PASCAL VOC (Annotations/*.xml, JPEGImages/ and ImageSets/Main/{train,val}.txt,"
        " or train/ and val/ with images and .xml side by side)",
        is_voc_dataset,
        read_voc,
    )
)
