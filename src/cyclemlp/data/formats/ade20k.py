"""ADE20K's archive (https://sceneparsing.csail.mit.edu): masks in `annotations`, 0 for ignored pixels.

The class names are the last column of `objectInfo150.txt`, unless there is a `classes.txt`.
"""

from pathlib import Path

from cyclemlp.data.formats.class_lists import ClassList, class_list
from cyclemlp.data.formats.masks import is_mask_dataset, read_masks
from cyclemlp.data.formats.registry import DatasetFormat, register
from cyclemlp.data.masks import IGNORE_INDEX, MaskDataset, count_classes
from cyclemlp.data.problems import Findings, Problem

_NAMES = "objectInfo150.txt"
_FOLDER_OF = {"train": "training", "val": "validation"}


def is_ade20k(root: Path) -> bool:
    """Whether `root` has ADE20K's folders and is not a data set with plain masks."""
    annotations = root / "annotations"
    has_split = any((annotations / name).is_dir() for name in _FOLDER_OF.values())
    return (root / "images").is_dir() and has_split and not is_mask_dataset(root)


def read_ade20k(root: Path, findings: Findings) -> MaskDataset:
    """The data set in `root`."""
    classes = class_list(root, findings)
    if not classes.names:
        classes = ClassList(_listed_classes(root / _NAMES, findings))
    _note_zero(root, classes, findings)
    folders = {split: (root / "images" / name, root / "annotations" / name) for split, name in _FOLDER_OF.items()}
    return read_masks(root, folders, classes, findings, zero_ignored=classes.palette is None)


def _note_zero(root: Path, classes: ClassList, findings: Findings) -> None:
    """A note where the folders alone say that 0 is ignored: others call theirs so, and count classes from 0."""
    if not (root / _NAMES).is_file() and classes.palette is None:
        first = next(iter(classes.names), "class0")
        what = f"has the folders of ADE20K, but no {_NAMES}: 0 in a mask is ignored, and 1 is {first}"
        fix = "where 0 is a class, call the folders train and val"
        findings.notes.append(Problem(root, "", what, fix))


def _listed_classes(path: Path, findings: Findings) -> tuple[str, ...]:
    """The names with all synonyms; none without the file or if it is unusable."""
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8-sig", errors="replace").strip().splitlines()
    names = tuple(line.split("\t")[-1].strip() for line in lines[1:])
    if len(set(names)) != len(names) or "" in names or not 2 <= len(names) < IGNORE_INDEX:
        findings.add(path, "does not name each class once", "take the file of the archive, or write classes.txt")
        return ()
    return names


register(
    DatasetFormat(
        "masks",
        MaskDataset,
        "ADE20K's archive",
        is_ade20k,
        read_ade20k,
        count_classes,
        "the same name in images and annotations",
    )
)
