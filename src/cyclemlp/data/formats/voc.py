"""PASCAL VOC's annotations, one XML file per image; http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/.

Coordinates count pixels from 1, and xmax, ymax name the last pixel of the box: a box that fills an image of 30x20 is
(1, 1, 30, 20). It is read as (xmin - 1, ymin - 1, xmax, ymax), which is off by at most one pixel for tools that count
from 0. Objects marked as difficult are regions to ignore, as in VOC's own evaluation.
"""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from functools import partial
from pathlib import Path, PureWindowsPath

from cyclemlp.data.folders import files_below, has_file, name_key
from cyclemlp.data.formats.layout import CLASSES_NAME, folder_of_split, paired, read_class_names, read_lines
from cyclemlp.data.formats.parsed_objects import ParsedObject, Size, WrongObjectError, flag, noted_size
from cyclemlp.data.formats.records import LabelledImage, read_objects
from cyclemlp.data.formats.registry import DatasetFormat, register
from cyclemlp.data.images import IMAGE_SUFFIXES, list_images
from cyclemlp.data.objects import DetectionDataset
from cyclemlp.data.problems import HOLD_OUT, SPLITS, Findings, Problem
from cyclemlp.data.unused_files import unused_files
from cyclemlp.documents import DocumentError, read_xml, shown
from cyclemlp.errors import did_you_mean

_LAYOUT = (
    "PASCAL VOC (Annotations/*.xml, JPEGImages/ and ImageSets/Main/{train,val}.txt,"
    " or train/ and val/ with images and .xml side by side)"
)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_BOX_FORMS = ("xmin, ymin, xmax, ymax", "xmin, ymin, width, height")
"""What a bndbox is, and what some tools write instead."""
_LISTS = Path("ImageSets") / "Main"
_CLASS_MARKS = ("1", "0", "-1")

_Labelled = LabelledImage[ET.Element]


def is_voc_dataset(root: Path) -> bool:
    """Whether `root` looks like this format."""
    return _has_lists(root) or any(_split_folders(root, split) is not None for split in SPLITS)


def read_voc(root: Path, findings: Findings) -> DetectionDataset:
    """The data set in `root`."""
    find = _listed_pairs if _has_lists(root) else _pairs_of_folders
    pairs = {split: found for split in SPLITS if (found := find(root, findings.of(split))) is not None}
    images = {split: _read_all(found, findings.of(split)) for split, found in pairs.items()}
    classes = _class_names(root, images.get("train"), findings)
    parse = partial(_parse, label_of={name_key(name): label for label, name in enumerate(classes)})
    _note_unused(root, pairs, findings)
    splits = {
        split: read_objects(labelled, parse, findings.of(split), misread=_BOX_FORMS)
        for split, labelled in images.items()
    }
    return DetectionDataset(root, classes, splits)


def _has_lists(root: Path) -> bool:
    return (root / "Annotations").is_dir() and (root / "JPEGImages").is_dir()


def _listed_pairs(root: Path, findings: Findings) -> dict[Path, Path] | None:
    """The images that a split's list names, in its order, and their XML files; None for a list that may be missing."""
    path = root / _LISTS / f"{findings.split}.txt"
    if not path.is_file():
        if findings.required:
            findings.add_missing(path, _fix_of_missing_list(path))
        return None
    # The folder is that of all splits: its problems are reported once.
    reported = findings.of("") if findings.split == "train" else Findings()
    xml_of = {image: root / "Annotations" / f"{image.stem}.xml" for image in list_images(root / "JPEGImages")}
    pair_of = {name_key(image.stem): (image, xml) for image, xml in paired(xml_of, (), reported).items()}
    names = _listed_names(path, pair_of, findings)
    for name in names:
        if name not in pair_of:
            fix = f"add the image to {root / 'JPEGImages'} or remove the line"
            findings.add(path, f"lists {_unquoted(name)}, which has no image", fix)
    return dict(pair_of[name] for name in names if name in pair_of)


def _listed_names(path: Path, known: Container[str], findings: Findings) -> list[str]:
    """The image that each line names, each once."""
    lines = read_lines(path)
    counts = Counter(_listed_name(line, known) for line in lines if line.strip())
    for name, count in counts.items():
        if count > 1:
            findings.add(path, f"lists {_unquoted(name)} {count} times", "keep one of the lines")
    if not counts:
        findings.add(path, "lists no images", "write the name of an image on each line")
    return list(counts)


def _listed_name(line: str, known: Container[str]) -> str:
    """The name of an image, which may have blanks and dots, or its file; lists of a class have 1, 0 or -1 after it."""
    name = name_key(line.strip())
    stem, _, mark = name.rpartition(" ")
    for given in (name, stem.strip()) if mark in _CLASS_MARKS else (name,):
        without = given.rpartition(".")[0] if Path(given).suffix.lower() in IMAGE_SUFFIXES else given
        if given in known or without in known:
            return given if given in known else without
    return without


def _unquoted(name: str) -> str:
    return shown(name)[1:-1]


def _fix_of_missing_list(path: Path) -> str:
    if path.stem == "train" and (path.parent / "trainval.txt").is_file():
        return "take the lines of trainval.txt that val.txt does not have"
    if path.stem == "val" and (path.parent / "test.txt").is_file():
        return f"{HOLD_OUT}, or copy test.txt there to validate on the test images"
    return "write the names of its images there, one a line without suffix"


def _split_folders(root: Path, split: str) -> tuple[Path, Path] | None:
    """Folders of a split's images and of its XML files; None without any such file."""
    folder = folder_of_split(root, split)
    candidates = (
        (folder, folder),
        (folder / "images", folder / "annotations"),
        (folder / "JPEGImages", folder / "Annotations"),
        (folder_of_split(root / "images", split), folder_of_split(root / "annotations", split)),
    )
    return next((pair for pair in candidates if pair[0].is_dir() and has_file(pair[1], ".xml")), None)


def _pairs_of_folders(root: Path, findings: Findings) -> dict[Path, Path] | None:
    """The images of a split that has folders of its own, with the XML files of the same names."""
    folders = _split_folders(root, findings.split)
    if folders is None:
        if findings.required:
            findings.add_missing(root / findings.split)
        return None
    xml_of = {image: folders[1] / f"{image.stem}.xml" for image in list_images(folders[0])}
    return paired(xml_of, _xml_files(folders[1]), findings, folders[0])


def _xml_files(folder: Path) -> list[Path]:
    return [path for path in files_below(folder, (".xml",)) if path.parent == folder]


def _note_unused(root: Path, pairs: Mapping[str, Mapping[Path, Path]], findings: Findings) -> None:
    """What the archives' layout has in its folders, and no list of images names; and images in other places."""
    listed = list_images(root / "JPEGImages") if _has_lists(root) else []
    findings.notes += unused_files(root, {*listed, *(image for pair in pairs.values() for image in pair)})
    if not _has_lists(root) or not pairs:
        return
    used = {path for pair in pairs.values() for path in (*pair, *pair.values())}
    for folder, files in (
        ("JPEGImages", listed),
        ("Annotations", _xml_files(root / "Annotations")),
    ):
        unused = [path for path in files if path not in used]
        if unused:
            count = f"{len(unused)} files" if unused[1:] else "1 file"
            what = (
                f"has {count} that no list of {', '.join(pairs)} names (such as {unused[0].name}), which are not used"
            )
            findings.notes.append(Problem(root / folder, "", what, "list them, or remove them"))


def _read_all(pairs: dict[Path, Path], findings: Findings) -> list[_Labelled]:
    read = [found for image, path in pairs.items() if (found := _read(image, path, findings))]
    _note_other_images(read, findings)
    return [labelled for labelled, _ in read]


def _note_other_images(read: Sequence[tuple[_Labelled, str]], findings: Findings) -> None:
    """A note on annotations whose <filename> is another image of the split: one of the two was renamed, or copied."""
    stems = {name_key(labelled.image.stem) for labelled, _ in read}
    others = []
    for labelled, name in read:
        stem = name_key(PureWindowsPath(name).stem)  # which knows both slashes
        others += [(labelled.file, name)] if stem in stems and stem != name_key(labelled.image.stem) else []
    if others:
        path, name = others[0]
        further = f", as do {len(others) - 1} further files" if others[1:] else ""
        what = f"has another image of the data as its filename ({_unquoted(name)}){further}"
        fix = "it is read for the image of its own name; if that is right, correct <filename>"
        findings.notes.append(Problem(path, findings.split, what, fix))


def _read(image: Path, path: Path, findings: Findings) -> tuple[_Labelled, str] | None:
    """What an XML file says, and the image that it names."""
    if not path.is_file():
        fix = "add it (without <object>, if there is nothing to find) or remove the image"
        findings.add(path, f"is missing, so {image.name} has no annotation", fix)
        return None
    try:
        tree = read_xml(path)
    except DocumentError as error:
        findings.add(path, str(error), error.fix)
        return None
    if tree.tag != "annotation":
        findings.add(path, f"begins with <{tree.tag}>", "write VOC's <annotation>")
        return None
    items = enumerate(tree.findall("object"), start=1)
    named = [(f"object {i} ({name})" if (name := _name_of(item)) else f"object {i}", item) for i, item in items]
    labelled = LabelledImage(image, path, named, _noted_size(tree, path, findings))
    return labelled, tree.findtext("filename", "").strip()


def _noted_size(tree: ET.Element, path: Path, findings: Findings) -> Size | None:
    height, width = (tree.findtext(f"size/{edge}", "").strip() for edge in ("height", "width"))
    try:
        return noted_size(*(text.removesuffix(".0") for text in (height, width)))
    except WrongObjectError as error:
        findings.add(path, error.what, error.fix)
        return None


def _class_names(root: Path, training: Sequence[_Labelled] | None, findings: Findings) -> tuple[str, ...]:
    """Those of classes.txt, otherwise the names of all training objects, sorted; without train those of the network."""
    path = root / CLASSES_NAME
    listed = findings.attempt(read_class_names, path) if path.is_file() else None
    if not listed and training is None:
        return findings.request.classes
    names = {_name_of(item) for labelled in training or () for _, item in labelled.objects} - {""}
    return listed or tuple(sorted(names))


def _name_of(item: ET.Element) -> str:
    return name_key(item.findtext("name", "").strip())


def _parse(item: ET.Element, _size: Size, label_of: dict[str, int]) -> ParsedObject:
    """Raises WrongObjectError."""
    label = _label(_name_of(item), label_of)
    left, top, right, bottom = _corners(item)
    difficult = flag(item.findtext("difficult"), "difficult")
    as_edges = (left, top, left + right, top + bottom)
    return ParsedObject((left - 1, top - 1, right, bottom), label, difficult, boxes_misread=(as_edges,))


def _label(name: str, label_of: dict[str, int]) -> int:
    if not name:
        raise WrongObjectError("has no <name>", "name its class")
    if name not in label_of:
        fix = (
            f"correct it, annotate some in train, or list all classes in {CLASSES_NAME}.{did_you_mean(name, label_of)}"
        )
        raise WrongObjectError("is of a class that train does not have", fix)
    return label_of[name]


def _corners(item: ET.Element) -> list[float]:
    """As the file has them. `float` also reads "nan", which the check of the box finds."""
    texts = [item.findtext(f"bndbox/{corner}", "").strip() for corner in _CORNERS]
    try:
        return [float(text) for text in texts]
    except ValueError as error:
        given = ", ".join(text or "nothing" for text in texts)
        raise WrongObjectError(f"has the bndbox {given}", f"write numbers as {', '.join(_CORNERS)}") from error


register(DatasetFormat("voc", DetectionDataset, _LAYOUT, is_voc_dataset, read_voc))
