"""Segmentation data as pictures in `images/{train,val}` and masks of the same names in `masks/{train,val}`.

A mask is a PNG whose value is the class; 255 is ignored. `classes.txt` names the classes, one per line. ADE20K is taken
as its archive has it: `annotations` for masks, 0 for ignored pixels, and names in `objectInfo150.txt`. Only
numpy and Pillow are imported at the top, so that `cyclemlp data` answers without loading torch.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from cyclemlp.data.class_names import CLASSES_NAME, ClassesError, read_class_names
from cyclemlp.data.images import ImageError, image_size, list_images, read_image, read_mask
from cyclemlp.data.problems import Problem, first_of
from cyclemlp.errors import DataError

IGNORE_INDEX = 255
LAYOUT = (
    "images/{train,val} with masks/{train,val} (PNG, value = class, 255 = ignore, optional classes.txt),"
    " or ADE20K's archive"
)
REQUIRED_SPLITS = ("train", "val")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskLayout:
    """Where a kind of data set has its masks, and how they count."""

    masks: str
    """Folder of the masks, beside `images`."""
    folder_of: Mapping[str, str]
    """Folder of a split in both; others are called as the split."""
    zero_ignored: bool
    """Whether 0 is ignored and k means class k - 1."""

    def folders(self, root: Path, split: str) -> tuple[Path, Path]:
        """Folders of the images and of the masks of a split."""
        name = self.folder_of.get(split, split)
        return root / "images" / name, root / self.masks / name


PLAIN = MaskLayout("masks", MappingProxyType({}), zero_ignored=False)
ADE20K = MaskLayout("annotations", MappingProxyType({"train": "training", "val": "validation"}), zero_ignored=True)
ADE20K_NAMES = "objectInfo150.txt"


@dataclass(frozen=True)
class MaskSplit:
    """The pictures of a split and the mask of each, in the same order."""

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    zero_ignored: bool = False
    """Whether 0 in a mask is ignored and k means class k - 1."""

    def target(self, index: int) -> npt.NDArray[np.uint8]:
        """The class of each pixel of an image, 255 for ignored ones, uint8 (H, W). Raises as `read_mask`."""
        return read_target(self.masks[index], zero_ignored=self.zero_ignored)


def read_target(path: Path, *, zero_ignored: bool) -> npt.NDArray[np.uint8]:
    """The class of each pixel of a mask, uint8 (H, W). Raises as `read_mask`."""
    numbers = read_mask(path)
    return numbers - np.uint8(1) if zero_ignored else numbers  # 0 becomes 255


@dataclass(frozen=True)
class MaskDataset:
    """A whole data set; class `i` of the masks is `classes[i]`."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, MaskSplit]


class SegmentationSamples:
    """The pairs of a split as a map-style torch data set.

    An item is (image, mask): tv_tensors.Image uint8 (3, H, W) and tv_tensors.Mask uint8 (H, W), or what
    `transform(image, mask)` makes of them. Reading an item raises DataError for unusable files and, when
    `num_classes` is given, for mask values that are neither a class nor 255.
    """

    def __init__(
        self,
        split: MaskSplit,
        transform: Callable[[Any, Any], tuple[Any, Any]] | None = None,
        num_classes: int | None = None,
    ) -> None:
        self.split = split
        self.transform = transform
        self.num_classes = num_classes

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        import torch
        from torchvision import tv_tensors

        pixels, numbers = self._read(index)
        image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
        mask = tv_tensors.Mask(torch.from_numpy(numbers))
        return (image, mask) if self.transform is None else self.transform(image, mask)

    def _read(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        mask = self.split.masks[index]
        pixels, numbers = read_image(self.split.images[index]), self.split.target(index)
        if pixels.shape[:2] != numbers.shape:
            raise DataError(str(_other_size(mask, "", numbers.shape, pixels.shape[:2])))
        if self.num_classes is not None and numbers.max() >= self.num_classes:
            present = np.flatnonzero(np.bincount(numbers.ravel(), minlength=256))
            if problem := outside_classes(mask, "", present, self.num_classes):
                raise DataError(str(problem))
        return pixels, numbers


def is_mask_dataset(root: Path) -> bool:
    """Whether `root` looks like this format."""
    return (root / "images").is_dir() and ((root / "masks").is_dir() or layout_of(root) is ADE20K)


def layout_of(root: Path) -> MaskLayout:
    """Which layout a folder has: ADE20K's where there are masks of it, else the plain one."""
    is_ade = (root / ADE20K.masks / "training").is_dir() and not (root / PLAIN.masks).is_dir()
    return ADE20K if is_ade else PLAIN


def find_mask_dataset(root: Path) -> MaskDataset:
    """The data set in `root`, pairs and sizes checked by the files' headers.

    Without `classes.txt` the masks are read to count the classes, which are named class0, class1, ... Raises
    DataError for the first problem, with the number of further ones.
    """
    if not is_mask_dataset(root):
        raise DataError(f"{root} {'is no data set' if root.is_dir() else 'is no folder'}; expected {LAYOUT}")
    splits: dict[str, MaskSplit] = {}
    problems: list[Problem] = []
    for name in split_names(root):
        splits[name], found = pair_files(root, name)
        problems += found
    if problems:
        raise DataError(first_of(problems, root))
    classes = read_classes(root) or _classes_in_masks(root, splits.values())
    return MaskDataset(root, classes, splits)


def split_names(root: Path) -> tuple[str, ...]:
    """train, val, and every further folder that both `images` and `masks` have."""
    if layout_of(root) is ADE20K:
        return REQUIRED_SPLITS
    both = {path.name for path in (root / "images").iterdir() if (root / "masks" / path.name).is_dir()}
    return (*REQUIRED_SPLITS, *sorted(both - set(REQUIRED_SPLITS)))


def pair_files(root: Path, split: str) -> tuple[MaskSplit, list[Problem]]:
    """The pairs of one split that fit by name and size, and what is wrong with the others."""
    layout = layout_of(root)
    folders = layout.folders(root, split)
    problems = [_missing_folder(folder, split) for folder in folders if not folder.is_dir()]
    if problems:
        return MaskSplit((), ()), problems
    images, masks = (list_images(folder) for folder in folders)
    if not images:
        problems.append(Problem(folders[0], split, "has no images", "put .jpg or .png files there"))
    problems += _unpaired(images, masks, folders, split)
    mask_of = {path.stem: path for path in masks if path.suffix.lower() == ".png"}
    pairs = []
    for image in images:
        mask = mask_of.get(image.stem)
        if mask and not (wrong := _wrong_headers(image, mask, split)):
            pairs.append((image, mask))
        elif mask:
            problems += wrong
    found = MaskSplit(tuple(image for image, _ in pairs), tuple(mask for _, mask in pairs), layout.zero_ignored)
    return found, problems


def read_classes(root: Path) -> tuple[str, ...] | None:
    """The names in `classes.txt`, or None where there is no such file. DataError where it is not usable.

    Of ADE20K the names of its own list.
    """
    path = root / CLASSES_NAME
    if not path.is_file():
        listed = root / ADE20K_NAMES
        return _ade20k_classes(listed) if layout_of(root) is ADE20K and listed.is_file() else None
    classes = read_class_names(path)
    if not 2 <= len(classes) <= IGNORE_INDEX:
        raise ClassesError(path, f"names {len(classes)} classes", "write 2 to 255 names, one per line")
    return classes


def _ade20k_classes(path: Path) -> tuple[str, ...]:
    """The last column of its table, with all synonyms."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").strip().splitlines()
    names = tuple(line.split("\t")[-1].strip() for line in lines[1:])
    if len(set(names)) != len(names) or "" in names or not 2 <= len(names) < IGNORE_INDEX:
        raise ClassesError(path, "does not name each class once", "take the file of the archive, or write classes.txt")
    return names


def outside_classes(path: Path, split: str, present: Iterable[int], num_classes: int) -> Problem | None:
    """The problem that a mask holds values that are neither a class nor 255, if it does."""
    wrong = [int(value) for value in present if value >= num_classes and value != IGNORE_INDEX]
    if not wrong:
        return None
    shown = ", ".join(map(str, wrong[:5])) + (", ..." if wrong[5:] else "")
    what = f"holds the value {shown}" if len(wrong) == 1 else f"holds the values {shown}"
    allowed = f"outside the {num_classes} classes (0 to {num_classes - 1}, and 255 for ignore)"
    return Problem(path, split, f"{what}, {allowed}", "name the class in classes.txt or set those pixels to 255")


def no_second_class(root: Path) -> Problem:
    """The problem that all masks hold a single class (and perhaps 255), as black-and-white drawings do."""
    fix = "write the object class as 1 (255 means ignore)"
    return Problem(root / "masks", "train", "hold no class but 0, so there is nothing to tell apart", fix)


def _classes_in_masks(root: Path, splits: Iterable[MaskSplit]) -> tuple[str, ...]:
    _LOG.info("%s has no classes.txt: counting the classes in all masks", root)
    highest = 0
    for split in splits:
        for index in range(len(split.masks)):
            numbers = split.target(index)
            highest = max(highest, int(numbers.max(initial=0, where=numbers != IGNORE_INDEX)))
    if highest == 0:
        raise DataError(str(no_second_class(root)))
    return tuple(f"class{index}" for index in range(highest + 1))


def _missing_folder(folder: Path, split: str) -> Problem:
    kind = folder.parent.name
    fix = f"put the {kind} of the {split} split there"
    if split == "val":
        fix = "move about every fifth image of images/train to images/val, and its mask to masks/val"
    return Problem(folder, split, "is missing", fix)


def _unpaired(images: list[Path], masks: list[Path], folders: tuple[Path, Path], split: str) -> list[Problem]:
    problems = []
    image_stems = Counter(path.stem for path in images)
    mask_stems = {path.stem for path in masks}
    for path in images:
        if path.stem not in mask_stems:
            fix = f"add {folders[1] / path.stem}.png or remove the image"
            problems.append(Problem(path, split, "has no mask", fix))
        if image_stems[path.stem] > 1:
            problems.append(Problem(path, split, "shares its name with another image", "rename one of them"))
    for path in masks:
        if path.stem not in image_stems:
            fix = f"add the image to {folders[0]} or remove the mask"
            problems.append(Problem(path, split, "has no image", fix))
        if path.suffix.lower() != ".png":
            problems.append(Problem(path, split, "is a mask but no PNG", "save it as PNG, which keeps the numbers"))
    return problems


def _wrong_headers(image: Path, mask: Path, split: str) -> list[Problem]:
    sizes, problems = [], []
    for path in (image, mask):
        try:
            sizes.append(image_size(path))
        except ImageError as error:
            problems.append(Problem(path, split, error.what, error.fix))
    if not problems and sizes[0] != sizes[1]:
        problems.append(_other_size(mask, split, sizes[1], sizes[0]))
    return problems


def _other_size(mask: Path, split: str, size: tuple[int, ...], image_hw: tuple[int, ...]) -> Problem:
    what = f"is {size[1]}x{size[0]} (width x height), its image {image_hw[1]}x{image_hw[0]}"
    return Problem(mask, split, what, "make the mask the size of its image")
