"""Segmentation data as images in `images/{train,val}` and masks of the same names in `masks/{train,val}`.

A mask is a PNG, BMP, TIFF or array whose value is the class; 255 is ignored. `classes.txt` names the classes, one per
line, each with its colour where the masks hold colours. The name of a mask may end in `_mask` or `_label`, and names
are the same text whether their accents are composed or decomposed.
"""

from collections.abc import Mapping
from pathlib import Path

from cyclemlp.data.folders import entries_of, is_system
from cyclemlp.data.formats.class_lists import ClassList, class_list
from cyclemlp.data.formats.layout import SPLIT_OF, folder_of_split
from cyclemlp.data.formats.mask_pairs import SplitFolders, find_pairs, has_labels, is_mask_file, mask_folders
from cyclemlp.data.formats.registry import DatasetFormat, register
from cyclemlp.data.formats.vector_classes import mask_dataset
from cyclemlp.data.images import list_images
from cyclemlp.data.masks import MaskDataset, MaskSplit, count_classes
from cyclemlp.data.palettes import Palette
from cyclemlp.data.problems import REQUIRED_SPLITS, SPLITS, Findings, Problem, with_required
from cyclemlp.data.unused_files import unused_files
from cyclemlp.data.vector_labels import is_vector

_LAYOUT = "images/{train,val} with masks/{train,val} (PNG, value = class, 255 = ignore, optional classes.txt)"
_FOLDERS_OF_LISTS = ("splits", "split", "lists", "ImageSets/Segmentation")
_AS_PAIRS = "write {} as a CSV with the columns image and mask"


def is_mask_dataset(root: Path) -> bool:
    """Whether `root` has the folders of this format."""
    return mask_folders(root) is not None


def read_mask_dataset(root: Path, findings: Findings) -> MaskDataset:
    """The data set in `root`: train, val, and every further split that both the images and the masks have."""
    parents = mask_folders(root) or (root / "images", root / "masks")
    names = _splits_in(parents[0]) & _splits_in(parents[1])
    inside = names and names.isdisjoint(SPLITS)  # folders of places or days, not of splits
    if inside or (not names and list_images(parents[0]) and has_labels(parents[1])):
        return read_masks(root, unsplit(root, parents, findings), class_list(root, findings), findings)
    required = findings.request.splits if findings.request.hold_out else REQUIRED_SPLITS
    folders = {}
    for split in with_required(names, required):
        images, masks = (folder_of_split(parent, split) for parent in parents)
        folders[split] = (images, masks)
    return read_masks(root, folders, class_list(root, findings), findings)


def _splits_in(parent: Path) -> set[str]:
    """The folders in a folder by the splits that they mean, and others by their names."""
    folders = (path.name for path in entries_of(parent) if path.is_dir())
    return {SPLIT_OF.get(name.casefold(), name) for name in folders if not name.startswith(".") and not is_system(name)}


def unsplit(root: Path, folders: SplitFolders, findings: Findings) -> dict[str, SplitFolders]:
    """Where all images train and some are held out; a problem where that is not asked for."""
    if findings.request.hold_out is None:
        no_validation(root, findings)
    elif lists := _lists_of_splits(root):
        what = "is not read, so that --val-share chooses among all images, those of a test split too"
        findings.notes.append(Problem(lists[0], "", what, _AS_PAIRS.format(lists[0].name)))
    return {"train": folders}


def no_validation(root: Path, findings: Findings) -> None:
    """Add the problem that nothing says which images validate."""
    fix = "give --val-share 0.2 to hold out a fifth of the images, or make images/{train,val} and masks/{train,val}"
    if lists := _lists_of_splits(root):
        fix = f"{_AS_PAIRS.format(lists[0].name)}, or {fix}"
    findings.of("val").add(root, "has no validation split", fix)


def _lists_of_splits(root: Path) -> list[Path]:
    """Files that are called as lists of splits are: names of images, without those of masks."""
    folders = (root, *(root / name for name in _FOLDERS_OF_LISTS))
    files = (path for folder in folders for path in sorted(entries_of(folder)))
    return [path for path in files if path.suffix.lower() in (".txt", ".csv") and path.stem.casefold() in SPLIT_OF]


def read_masks(
    root: Path,
    folders: Mapping[str, SplitFolders],
    classes: ClassList,
    findings: Findings,
    *,
    zero_ignored: bool = False,
) -> MaskDataset:
    """The data set whose splits are in `folders`, pairs and sizes checked by the files' headers.

    Without names of `classes` they are unnamed. With `zero_ignored`, 0 in a mask is ignored and k means class k - 1.
    """
    found = {
        split: _read_split(each, findings.of(split), classes.palette, zero_ignored)
        for split, each in folders.items()
        if findings.of(split).required or all(folder.is_dir() for folder in each)
    }
    splits = {split: part for split, (part, _) in found.items()}
    findings.notes += unused_files(root, (path for _, known in found.values() for path in known))
    return mask_dataset(root, classes, splits, findings)


def _read_split(
    folders: SplitFolders, findings: Findings, palette: Palette | None, zero_ignored: bool
) -> tuple[MaskSplit, list[Path]]:
    """The split, and all files that it has or has named as problems."""
    images, masks, mask_of = find_pairs(folders, findings)
    used = set(mask_of.values())
    split = MaskSplit(
        images=tuple(mask_of),
        masks=tuple(mask_of.values()),
        zero_ignored=zero_ignored,
        palette=palette,
        other_images=tuple(path for path in images if path not in mask_of),
        other_masks=tuple(path for path in masks if is_mask_file(path) and not is_vector(path) and path not in used),
    )
    return split, [*images, *masks]


_PAIRING = "the same place and name in images and masks"
register(DatasetFormat("masks", MaskDataset, _LAYOUT, is_mask_dataset, read_mask_dataset, count_classes, _PAIRING))
