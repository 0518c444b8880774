"""Segmentation data as images in `images/{train,val}` and masks of the same names in `masks/{train,val}`.

A mask is a PNG whose value is the class; 255 is ignored. `classes.txt` names the classes, one per line.
"""

from collections.abc import Mapping
from pathlib import Path

from cyclemlp.data.formats.layout import CLASSES_NAME, paired, read_class_names
from cyclemlp.data.formats.registry import DatasetFormat, register
from cyclemlp.data.images import image_size, list_images
from cyclemlp.data.masks import IGNORE_INDEX, MaskDataset, MaskSplit, count_classes, wrong_mask_size
from cyclemlp.data.problems import Findings, with_required

_LAYOUT = "images/{train,val} with masks/{train,val} (PNG, value = class, 255 = ignore, optional classes.txt)"
_Folders = tuple[Path, Path]
"""The images and the masks of a split."""


def is_mask_dataset(root: Path) -> bool:
    """Whether `root` has the folders of this format."""
    return (root / "images").is_dir() and (root / "masks").is_dir()


def read_mask_dataset(root: Path, findings: Findings) -> MaskDataset:
    """The data set in `root`: train, val, and every further split that both the images and the masks have."""
    images, masks = root / "images", root / "masks"
    splits = with_required(path.name for path in images.iterdir() if (masks / path.name).is_dir())
    folders = {split: (images / split, masks / split) for split in splits}
    return read_masks(root, folders, named_classes(root, findings), findings)


def read_masks(
    root: Path,
    folders: Mapping[str, _Folders],
    classes: tuple[str, ...],
    findings: Findings,
    *,
    zero_ignored: bool = False,
) -> MaskDataset:
    """The data set whose splits are in `folders`, pairs and sizes checked by the files' headers.

    Without `classes` they are unnamed. With `zero_ignored`, 0 in a mask is ignored and k means class k - 1.
    """
    splits = {split: _read_split(each, findings.of(split), zero_ignored) for split, each in folders.items()}
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


def _read_split(folders: _Folders, findings: Findings, zero_ignored: bool) -> MaskSplit:
    images, masks = (list_images(folder) if folder.is_dir() else [] for folder in folders)
    stored = {path.stem: path for path in masks if path.suffix.lower() == ".png"}
    missing = [folder for folder in folders if not folder.is_dir()]
    for folder in missing:
        fix = f"put the {folder.parent.name} of the {findings.split} split there"
        if findings.split == "val":
            fix = "move about every fifth image of images/train to images/val, and its mask to masks/val"
        findings.add_missing(folder, fix)
    pairs: dict[Path, Path] = {}
    if not missing:
        found = {
            image: stored[image.stem] for image in _paired(images, masks, folders, findings) if image.stem in stored
        }
        pairs = {image: mask for image, mask in found.items() if _headers_fit(image, mask, findings)}
    used = set(pairs.values())
    return MaskSplit(
        images=tuple(pairs),
        masks=tuple(pairs.values()),
        zero_ignored=zero_ignored,
        other_images=tuple(path for path in images if path not in pairs),
        other_masks=tuple(path for path in stored.values() if path not in used),
    )


def _paired(images: list[Path], masks: list[Path], folders: _Folders, findings: Findings) -> list[Path]:
    """The images with a mask of their own name, of whichever suffix."""
    if not images:
        findings.add(folders[0], "has no images", "put .jpg or .png files there")
    mask_of = {image: folders[1] / f"{image.stem}.png" for image in images}
    stems = {path.stem for path in masks}
    for image, mask in mask_of.items():
        if image.stem not in stems:
            findings.add(image, "has no mask", f"add {mask} or remove the image")
    for path in masks:
        if path.suffix.lower() != ".png":
            findings.add(path, "is a mask but not a PNG", "save it as PNG, which keeps the numbers")
    return list(paired(mask_of, masks, findings, folders[0]))


def _headers_fit(image: Path, mask: Path, findings: Findings) -> bool:
    sizes = [findings.attempt(image_size, path) for path in (image, mask)]
    if sizes[0] and sizes[1] and sizes[0] != sizes[1]:
        findings.problems.append(wrong_mask_size(mask, findings.split, sizes[1], sizes[0], image))
    return sizes[0] is not None and sizes[0] == sizes[1]


register(DatasetFormat("masks", MaskDataset, _LAYOUT, is_mask_dataset, read_mask_dataset, count_classes))
