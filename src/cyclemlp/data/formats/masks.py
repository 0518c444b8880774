"""Segmentation data as images in `images/{train,val}` and masks of the same names in `masks/{train,val}`.

A mask is a PNG whose value is the class; 255 is ignored. `classes.txt` names the classes, one per line.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cyclemlp.data.class_names import CLASSES_NAME, read_class_names
from cyclemlp.data.formats.registry import REQUIRED_SPLITS, DatasetFormat, register
from cyclemlp.data.images import ImageError, image_size, list_images
from cyclemlp.data.masks import IGNORE_INDEX, MaskDataset, MaskSplit, count_classes, wrong_mask_size
from cyclemlp.data.problems import FileError, Findings


@dataclass(frozen=True)
class MaskLayout:
    """Where a format has its masks, and how they count."""

    masks: str
    """Folder of the masks, next to `images`."""
    folder_of: Mapping[str, str]
    """Folder of a split in both. Without any, a folder is called as its split, and there may be further splits."""
    zero_ignored: bool
    """Whether 0 is ignored and k means class k - 1."""

    def folders(self, root: Path, split: str) -> tuple[Path, Path]:
        """Folders of the images and of the masks of a split."""
        name = self.folder_of.get(split, split)
        return root / "images" / name, root / self.masks / name

    def splits(self, root: Path) -> tuple[str, ...]:
        """train, val, and every further folder that both the images and the masks have."""
        if self.folder_of:
            return REQUIRED_SPLITS
        both = {path.name for path in (root / "images").iterdir() if (root / self.masks / path.name).is_dir()}
        return (*REQUIRED_SPLITS, *sorted(both - set(REQUIRED_SPLITS)))


_LAYOUT = MaskLayout("masks", MappingProxyType({}), zero_ignored=False)


def is_mask_dataset(root: Path) -> bool:
    """Whether `root` has the folders of this format."""
    return (root / "images").is_dir() and (root / "masks").is_dir()


def read_mask_dataset(root: Path, findings: Findings) -> MaskDataset:
    """The data set in `root`."""
    return read_masks(root, _LAYOUT, named_classes(root, findings), findings)


def read_masks(root: Path, layout: MaskLayout, classes: tuple[str, ...], findings: Findings) -> MaskDataset:
    """The data set in `root`, pairs and sizes checked by the files' headers; without `classes` they are unnamed."""
    splits = {split: _read_split(root, layout, split, findings) for split in layout.splits(root)}
    return MaskDataset(root, classes, splits, named=bool(classes))


def named_classes(root: Path, findings: Findings) -> tuple[str, ...]:
    """The names in `classes.txt`; none without the file or if it is unusable."""
    path = root / CLASSES_NAME
    if not path.is_file():
        return ()
    try:
        classes = read_class_names(path)
        if not 2 <= len(classes) <= IGNORE_INDEX:
            raise FileError(path, f"names {len(classes)} classes", "write 2 to 255 names, one per line")
    except FileError as error:
        findings.add_error(error, "")
        return ()
    return classes


def _read_split(root: Path, layout: MaskLayout, split: str, findings: Findings) -> MaskSplit:
    folders = layout.folders(root, split)
    missing = [folder for folder in folders if not folder.is_dir()]
    for folder in missing:
        _add_missing(folder, split, findings)
    images, masks = (list_images(folder) if folder.is_dir() else [] for folder in folders)
    pairs: dict[Path, Path] = {}
    if not missing:
        if not images:
            findings.add(folders[0], split, "has no images", "put .jpg or .png files there")
        _add_unpaired(images, masks, folders, split, findings)
        mask_of = {path.stem: path for path in masks if path.suffix.lower() == ".png"}
        found = {image: mask_of[image.stem] for image in images if image.stem in mask_of}
        pairs = {image: mask for image, mask in found.items() if _headers_fit(image, mask, split, findings)}
    used = set(pairs.values())
    return MaskSplit(
        images=tuple(pairs),
        masks=tuple(pairs.values()),
        zero_ignored=layout.zero_ignored,
        other_images=tuple(path for path in images if path not in pairs),
        other_masks=tuple(path for path in masks if path not in used and path.suffix.lower() == ".png"),
    )


def _add_missing(folder: Path, split: str, findings: Findings) -> None:
    fix = f"put the {folder.parent.name} of the {split} split there"
    if split == "val":
        fix = "move about every fifth image of images/train to images/val, and its mask to masks/val"
    findings.add(folder, split, "is missing", fix)


def _add_unpaired(
    images: list[Path], masks: list[Path], folders: tuple[Path, Path], split: str, findings: Findings
) -> None:
    image_stems = Counter(path.stem for path in images)
    mask_stems = {path.stem for path in masks}
    for path in images:
        if path.stem not in mask_stems:
            findings.add(path, split, "has no mask", f"add {folders[1] / path.stem}.png or remove the image")
        if image_stems[path.stem] > 1:
            findings.add(path, split, "shares its name with another image", "rename one of them")
    for path in masks:
        if path.stem not in image_stems:
            findings.add(path, split, "has no image", f"add the image to {folders[0]} or remove the mask")
        if path.suffix.lower() != ".png":
            findings.add(path, split, "is a mask but not a PNG", "save it as PNG, which keeps the numbers")


def _headers_fit(image: Path, mask: Path, split: str, findings: Findings) -> bool:
    sizes = []
    for path in (image, mask):
        try:
            sizes.append(image_size(path))
        except ImageError as error:
            findings.add_error(error, split)
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        findings.problems.append(wrong_mask_size(mask, split, sizes[1], sizes[0]))
    return len(sizes) == 2 and sizes[0] == sizes[1]


register(
    DatasetFormat(
        "masks",
        MaskDataset,
        "images/{train,val} with masks/{train,val} (PNG, value = class, 255 = ignore, optional classes.txt)",
        is_mask_dataset,
        read_mask_dataset,
        count_classes,
    )
)
