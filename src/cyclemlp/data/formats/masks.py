"""Segmentation data as images in `images/{train,val}` and masks of the same names in `masks/{train,val}`.

A mask is a PNG whose value is the class; 255 is ignored. `classes.txt` names the classes, one per line. The name of a
mask may end in `_mask` or `_label`, and names are the same text whether their accents are composed or decomposed.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from cyclemlp.data.folders import entries_of, is_system, name_key
from cyclemlp.data.formats.layout import CLASSES_NAME, folder_of_split, paired, read_class_names
from cyclemlp.data.formats.registry import DatasetFormat, register
from cyclemlp.data.images import image_size, list_images
from cyclemlp.data.masks import IGNORE_INDEX, MaskDataset, MaskSplit, count_classes, wrong_mask_size
from cyclemlp.data.problems import REQUIRED_SPLITS, Findings, with_required
from cyclemlp.data.unused_files import unused_files

_LAYOUT = "images/{train,val} with masks/{train,val} (PNG, value = class, 255 = ignore, optional classes.txt)"
SplitFolders = tuple[Path, Path]
"""The images and the masks of a split; one folder twice where they are next to each other."""
_ENDING = re.compile(r"[_-](masks?|labels?)$", re.IGNORECASE)
_OTHER_NAMES = frozenset({"valid", "validation"})
"""Usual names of the folders of val."""


def is_mask_dataset(root: Path) -> bool:
    """Whether `root` has the folders of this format."""
    return (root / "images").is_dir() and (root / "masks").is_dir()


def read_mask_dataset(root: Path, findings: Findings) -> MaskDataset:
    """The data set in `root`: train, val, and every further split that both the images and the masks have."""
    parents = root / "images", root / "masks"
    names = {path.name for path in entries_of(parents[0]) if (parents[1] / path.name).is_dir()}
    names = {name for name in names if not name.startswith(".") and not is_system(name)}
    if "val" not in names and (names & _OTHER_NAMES):
        names -= {folder_of_split(parents[0], "val").name}
    if not names and all(list_images(parent) for parent in parents):
        return read_masks(root, unsplit(root, parents, findings), named_classes(root, findings), findings)
    required = findings.request.splits if findings.request.hold_out else REQUIRED_SPLITS
    folders = {}
    for split in with_required(names, required):
        images, masks = (folder_of_split(parent, split) for parent in parents)
        folders[split] = (images, masks)
    return read_masks(root, folders, named_classes(root, findings), findings)


def unsplit(root: Path, folders: SplitFolders, findings: Findings) -> dict[str, SplitFolders]:
    """Where all images train and some are held out; a problem where that is not asked for."""
    if findings.request.hold_out is None:
        fix = "give --val-share 0.2 to hold out a fifth of the images, or make images/{train,val} and masks/{train,val}"
        findings.of("val").add(root, "has no validation split", fix)
    return {"train": folders}


def read_masks(
    root: Path,
    folders: Mapping[str, SplitFolders],
    classes: tuple[str, ...],
    findings: Findings,
    *,
    zero_ignored: bool = False,
) -> MaskDataset:
    """The data set whose splits are in `folders`, pairs and sizes checked by the files' headers.

    Without `classes` they are unnamed. With `zero_ignored`, 0 in a mask is ignored and k means class k - 1.
    """
    found = {
        split: _read_split(each, findings.of(split), zero_ignored)
        for split, each in folders.items()
        if findings.of(split).required or all(folder.is_dir() for folder in each)
    }
    splits = {split: part for split, (part, _) in found.items()}
    findings.notes += unused_files(root, (path for _, known in found.values() for path in known))
    return MaskDataset(root, classes, splits, named=bool(classes))


def named_classes(root: Path, findings: Findings) -> tuple[str, ...]:
    """The names in `classes.txt`; none without the file or if it is unusable."""
    path = root / CLASSES_NAME
    if not path.is_file():
        return ()
    classes = findings.attempt(read_class_names, path)
    if classes is None or 2 <= len(classes) <= IGNORE_INDEX:
        return classes or ()
    findings.add(path, f"names {len(classes)} classes", "write 2 to 255 names, one per line")
    return ()


def names_image(stem: str, images: Collection[str]) -> bool:
    """Whether the name of a mask, without its ending for masks, is one of these names of images."""
    return _has_ending(stem) and _ENDING.sub("", name_key(stem)) in images


def _has_ending(stem: str) -> bool:
    """Whether a name ends as those of masks do."""
    return _ENDING.search(stem) is not None


def _image_name(stem: str, images: Collection[str]) -> str:
    """The name of the image that a mask of this name belongs to."""
    key = name_key(stem)
    shortened = _ENDING.sub("", key)
    return shortened if key not in images and shortened in images else key


def _read_split(folders: SplitFolders, findings: Findings, zero_ignored: bool) -> tuple[MaskSplit, list[Path]]:
    """The split, and all files that it has or has named as problems."""
    images, masks = _listed(folders)
    missing = [folder for folder in dict.fromkeys(folders) if not folder.is_dir()]
    for folder in missing:
        _add_missing(folder, findings)
    pairs: dict[Path, Path] = {}
    if not missing:
        found = _paired(images, masks, folders, findings)
        pairs = {image: mask for image, mask in found.items() if _headers_fit(image, mask, findings)}
    used = set(pairs.values())
    split = MaskSplit(
        images=tuple(pairs),
        masks=tuple(pairs.values()),
        zero_ignored=zero_ignored,
        other_images=tuple(path for path in images if path not in pairs),
        other_masks=tuple(path for path in masks if _is_png(path) and path not in used),
    )
    return split, [*images, *masks]


def _listed(folders: SplitFolders) -> tuple[list[Path], list[Path]]:
    images, masks = (list_images(folder) if folder.is_dir() else [] for folder in folders)
    if folders[0] != folders[1]:
        return images, masks
    masks = [path for path in images if _is_png(path) and _has_ending(path.stem)]
    taken = set(masks)
    return [path for path in images if path not in taken], masks


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"


def _add_missing(folder: Path, findings: Findings) -> None:
    if findings.request.split is not None:
        findings.add_missing(folder)
        return
    fix = f"put the {folder.parent.name} of the {findings.split} split there"
    if folder.name in ("images", "masks"):
        fix = f"put the {folder.name} of the {findings.split} split there"
    elif findings.split == "val":
        fix = "move about every fifth image of images/train to images/val, and its mask to masks/val"
        fix += ", or give --val-share 0.2"
    findings.add_missing(folder, fix)


def _paired(images: list[Path], masks: list[Path], folders: SplitFolders, findings: Findings) -> dict[Path, Path]:
    """The images that have a mask of their own, and that."""
    if not images:
        findings.add(folders[0], "has no images", "put .jpg or .png files there")
    keys = {name_key(path.stem) for path in images}
    stored: dict[str, Path] = {}
    for path in masks:
        if not _is_png(path):
            findings.add(path, "is a mask but not a PNG", "save it as PNG, which keeps the numbers")
        elif (first := stored.setdefault(_image_name(path.stem, keys), path)) != path:
            findings.add(path, f"belongs to the same image as {first.name}", "remove one of the two")
    of_any_kind = {_image_name(path.stem, keys) for path in masks}
    for image in images:
        if name_key(image.stem) not in of_any_kind:
            ending = "_mask" if folders[0] == folders[1] else ""
            findings.add(image, "has no mask", f"add {folders[1] / image.stem}{ending}.png or remove the image")
    mask_of = {image: stored.get(name_key(image.stem), folders[1] / f"{image.stem}.png") for image in images}
    pairs = paired(mask_of, [path for path in masks if _belongs(path, keys, stored)], findings, folders[0])
    return {image: mask for image, mask in pairs.items() if mask.is_file()}


def _belongs(path: Path, keys: Collection[str], stored: Mapping[str, Path]) -> bool:
    """Whether it is the mask of its image, or of none, which is still to be named; others have been."""
    key = _image_name(path.stem, keys)
    return stored.get(key, path) == path and (_is_png(path) or key not in keys)


def _headers_fit(image: Path, mask: Path, findings: Findings) -> bool:
    sizes = [findings.attempt(image_size, path) for path in (image, mask)]
    if sizes[0] and sizes[1] and sizes[0] != sizes[1]:
        findings.problems.append(wrong_mask_size(mask, findings.split, sizes[1], sizes[0], image))
    return sizes[0] is not None and sizes[0] == sizes[1]


register(DatasetFormat("masks", MaskDataset, _LAYOUT, is_mask_dataset, read_mask_dataset, count_classes))
