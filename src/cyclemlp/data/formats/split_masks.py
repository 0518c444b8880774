"""Segmentation data by split: `train/images` with `train/masks`, or images and masks next to each other in `train`.

The latter is what Roboflow exports as semantic masks: `NAME.jpg`, `NAME_mask.png` and a table `_classes.csv` of values
and names in each of train, valid and test.
"""

import csv
from pathlib import Path

from cyclemlp.data.formats.class_lists import ClassList, check_number, class_list
from cyclemlp.data.formats.layout import folder_of_split, read_lines, refuse_repeated
from cyclemlp.data.formats.mask_pairs import SplitFolders, has_masks, mask_folders
from cyclemlp.data.formats.masks import is_mask_dataset, read_masks, unsplit
from cyclemlp.data.formats.registry import DatasetFormat, register
from cyclemlp.data.masks import MaskDataset, count_classes
from cyclemlp.data.problems import SPLITS, FileError, Findings

_LAYOUT = "{train,val}/{images,masks} (or NAME_mask.png by images)"
_TABLE_NAME = "_classes.csv"


def is_split_masks(root: Path) -> bool:
    """Whether a split in `root` has images with masks."""
    return not is_mask_dataset(root) and any(_folders(place) for place in _places(root))


def _places(root: Path) -> list[Path]:
    """The folders of the splits, and the root itself, which may have images and masks next to each other."""
    return [*(folder_of_split(root, split) for split in SPLITS), root]


def read_split_masks(root: Path, findings: Findings) -> MaskDataset:
    """The data set in `root`."""
    pattern = next(folders for folders in map(_folders, _places(root)) if folders)
    if pattern == (root, root):
        return read_masks(root, unsplit(root, pattern, findings), class_list(root, findings), findings)
    together = pattern[0] == pattern[1]
    folders = {}
    held_out = findings.request.hold_out is not None
    for split in SPLITS:
        if split == "val" and held_out and not folder_of_split(root, split).is_dir():
            continue
        parent = folder_of_split(root, split)
        names = [folder.name for folder in pattern]
        folders[split] = (parent, parent) if together else (parent / names[0], parent / names[1])
    classes = class_list(root, findings)
    if not classes.names:
        classes = ClassList(_tabled_classes(root, findings))
    return read_masks(root, folders, classes, findings)


def _folders(parent: Path) -> SplitFolders | None:
    """Where the images and the masks of a split are, if it has both."""
    if (named := mask_folders(parent)) is not None:
        return named
    return (parent, parent) if parent.is_dir() and has_masks(parent) else None


def _tabled_classes(root: Path, findings: Findings) -> tuple[str, ...]:
    """The names in the tables of the splits; none without any, or where they are unusable."""
    paths = [folder_of_split(root, split) / _TABLE_NAME for split in SPLITS]
    tables = {path: findings.attempt(_read_table, path) for path in paths if path.is_file()}
    first = next(iter(tables), None)
    for path, names in tables.items():
        if first is not None and names != tables[first]:
            findings.add(path, f"lists other classes than {first}", "make them equal, or write classes.txt")
            return ()
    return (tables[first] or ()) if first is not None else ()


def _read_table(path: Path) -> tuple[str, ...]:
    """Raises FileError."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(read_lines(path)[1:]) if row]
    if any(len(row) != 2 or row[0] != str(number) or not row[1] for number, row in enumerate(rows)):
        raise FileError(path, "does not name the values 0, 1, 2, ... in order", "correct it, or write classes.txt")
    names = tuple(name for _, name in rows)
    refuse_repeated(path, names)
    return check_number(path, names)


_PAIRING = "the same name in the folders of a split, or next to each other"
register(DatasetFormat("masks", MaskDataset, _LAYOUT, is_split_masks, read_split_masks, count_classes, _PAIRING))
