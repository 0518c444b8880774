"""Which mask belongs to which image, by their names: the same place below two folders, or next to each other.

The name of a mask may end in `_mask` or `_label` and have another suffix. Folders within the folder of the images are
read where that of the masks has them as well.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from cyclemlp.data.folders import entries_of, is_system, name_key, walk
from cyclemlp.data.formats.layout import paired
from cyclemlp.data.georeference import check_same_place, georeference
from cyclemlp.data.image_errors import ImageError
from cyclemlp.data.images import ARRAY_SUFFIXES, IMAGE_SUFFIXES, list_images
from cyclemlp.data.mask_tiffs import size_of_mask
from cyclemlp.data.masks import wrong_mask_size
from cyclemlp.data.problems import HOLD_OUT, Findings
from cyclemlp.data.stored_masks import MASK_SUFFIXES
from cyclemlp.data.vector_labels import VECTOR_SUFFIXES, is_vector
from cyclemlp.data.windows import size_of

SplitFolders = tuple[Path, Path]
"""The images and the masks of a split; one folder twice where they are next to each other."""
_ENDING = re.compile(r"[_-](masks?|labels?)$", re.IGNORECASE)
_OME = ".ome"
"""What the names of OME-TIFF files have before their suffix."""


IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "annotation", "gt", "ground_truth")
"""Usual names of folders, in any case."""
_TOLD_BY_SUFFIX = VECTOR_SUFFIXES | MASK_SUFFIXES - ARRAY_SUFFIXES
"""Suffixes of masks; tools for boxes keep arrays next to labels."""


class Key(NamedTuple):
    """Equal for an image and its mask: the folder below that of the split, and the name."""

    folder: str
    stem: str


class Pairs(NamedTuple):
    """The files of a split."""

    images: list[Path]
    masks: list[Path]
    mask_of: dict[Path, Path]
    """The mask of each image that has one that fits it."""


def mask_folders(root: Path) -> SplitFolders | None:
    """The folders of images and masks in `root` under their usual names, if the latter holds masks.

    `images` and `masks` are enough by their names; folders of other names may hold labels of boxes.
    """
    if (root / "images").is_dir() and (root / "masks").is_dir():
        return root / "images", root / "masks"
    named = {path.name.casefold(): path for path in sorted(entries_of(root), reverse=True)}
    images, masks = (
        next((named[name] for name in names if name in named and named[name].is_dir()), None)
        for names in (IMAGE_FOLDERS, MASK_FOLDERS)
    )
    if images is None or masks is None or not _holds_masks(masks):
        return None
    return images, masks


def _holds_masks(folder: Path) -> bool:
    """Whether it or a folder in it has masks; not those of ADE20K's archive, whose 0 means something else."""
    if folder.name == "annotations" and any((folder / name).is_dir() for name in ("training", "validation")):
        return False
    places = (folder, *(folder / place for place in _folders_below(folder)))
    return any(path.suffix.lower() in _TOLD_BY_SUFFIX for place in places for path in entries_of(place))


def find_pairs(folders: SplitFolders, findings: Findings) -> Pairs:
    """The images and masks in the folders of a split, sizes checked by the files' headers."""
    images, masks = _listed(folders)
    missing = [folder for folder in dict.fromkeys(folders) if not folder.is_dir()]
    for folder in missing:
        _add_missing(folder, findings)
    found = {} if missing else _paired(images, masks, folders, findings)
    fitting = {image: mask for image, mask in found.items() if headers_fit(image, mask, findings)}
    return Pairs(images, masks, fitting)


def is_mask_file(path: Path) -> bool:
    """Whether a file of this suffix keeps class numbers, or areas on a map."""
    return path.suffix.lower() in MASK_SUFFIXES | VECTOR_SUFFIXES


def names_image(stem: str, images: Collection[str]) -> bool:
    """Whether the name of a mask, without its ending for masks, is one of these names of images."""
    return _has_ending(stem) and not set(_image_stems(stem)[1:]).isdisjoint(images)


def has_masks(folder: Path) -> bool:
    """Whether it has a mask with the name of another image and an ending for masks, or areas; names are looked at."""
    suffixes = IMAGE_SUFFIXES | VECTOR_SUFFIXES
    names = [Path(entry.name) for entry in entries_of(folder) if Path(entry.name).suffix.lower() in suffixes]
    stems = {name_key(name.stem) for name in names if not is_vector(name)}
    return any(
        is_mask_file(name) and (names_image(name.stem, stems) or (is_vector(name) and name_key(name.stem) in stems))
        for name in names
    )


def has_labels(folder: Path) -> bool:
    """Whether it has masks or areas."""
    return bool(list_images(folder) or _areas_in(folder))


def headers_fit(image: Path, mask: Path, findings: Findings) -> bool:
    """Whether an image and its mask have one size and, where both say it, one place; a problem where they do not."""
    if is_vector(mask):
        return findings.attempt(size_of, image) is not None and _has_place(image, mask, findings)
    sizes = [findings.attempt(size_of, image), findings.attempt(size_of_mask, mask)]
    if sizes[0] and sizes[1] and sizes[0] != sizes[1]:
        findings.problems.append(wrong_mask_size(mask, findings.split, sizes[1], sizes[0], image))
    if sizes[0] is None or sizes[0] != sizes[1]:
        return False
    try:
        check_same_place(image, mask)
    except ImageError as error:
        findings.add_error(error)
        return False
    return True


def _has_place(image: Path, mask: Path, findings: Findings) -> bool:
    """Whether areas can be drawn on an image; a problem where it does not say where it lies."""
    if georeference(image) is not None:
        return True
    what = f"does not say where it lies, so that the areas in {mask.name} have no place on it"
    findings.add(image, what, "give it a coordinate reference system and a transform, or use masks of pixels")
    return False


def _has_ending(stem: str) -> bool:
    """Whether a name ends as those of masks do."""
    return _ENDING.search(stem) is not None


def _key(path: Path, folder: Path) -> Key:
    return Key(name_key(path.parent.relative_to(folder).as_posix()), name_key(path.stem))


def _image_key(mask: Path, folder: Path, images: Collection[Key]) -> Key:
    """The key of the image that a mask belongs to."""
    key = _key(mask, folder)
    return next((each for stem in _image_stems(key.stem) if (each := key._replace(stem=stem)) in images), key)


def _image_stems(stem: str) -> list[str]:
    """The names, without suffix, that the image of a mask may have: `a` or, in OME-TIFF, `a.ome` for `a_mask`."""
    shortened = _ENDING.sub("", name_key(stem))
    return [name_key(stem), shortened, f"{shortened}{_OME}"]


def _listed(folders: SplitFolders) -> tuple[list[Path], list[Path]]:
    if folders[0] == folders[1]:
        return _listed_together(folders[0])
    inner = [""] + [place for place in _folders_below(folders[0]) if (folders[1] / place).is_dir()]
    images, masks = ([path for place in inner for path in list_images(folder / place)] for folder in folders)
    return images, [*masks, *(path for place in inner for path in _areas_in(folders[1] / place))]


def _listed_together(folder: Path) -> tuple[list[Path], list[Path]]:
    inner = [""] + [place for place in _folders_below(folder) if has_masks(folder / place)]
    images = [path for place in inner for path in list_images(folder / place)]
    keys = {_key(path, folder) for path in images}
    masks = [path for path in images if is_mask_file(path) and _is_mask_of_another(path, folder, keys)]
    taken = set(masks)
    areas = [path for place in inner for path in _areas_in(folder / place)]
    return [path for path in images if path not in taken], [*masks, *areas]


def _areas_in(folder: Path) -> list[Path]:
    """The files of areas directly in a folder."""
    return sorted(path for path in entries_of(folder) if is_vector(path) and not path.name.startswith("."))


def _is_mask_of_another(path: Path, folder: Path, images: Collection[Key]) -> bool:
    """Whether a file among images is a mask; a PNG with an ending for masks is, even if its image is missing."""
    key = _key(path, folder)
    known = any(key._replace(stem=stem) in images for stem in _image_stems(path.stem)[1:])
    return _has_ending(path.stem) and (path.suffix.lower() == ".png" or known)


def _folders_below(folder: Path) -> list[str]:
    """The folders within a folder, at any depth, without hidden ones and those of operating systems."""
    found = []
    for place, inner, _ in walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith(".") and not is_system(name))
        found += [Path(place, name).relative_to(folder).as_posix() for name in inner]
    return found


def _add_missing(folder: Path, findings: Findings) -> None:
    if findings.request.split is not None:
        findings.add_missing(folder)
        return
    fix = f"put the {folder.parent.name} of the {findings.split} split there"
    if folder.name in ("images", "masks"):
        fix = f"put the {folder.name} of the {findings.split} split there"
    elif findings.split == "val":
        fix = HOLD_OUT
    findings.add_missing(folder, fix)


def _paired(images: list[Path], masks: list[Path], folders: SplitFolders, findings: Findings) -> dict[Path, Path]:
    """The images that have a mask of their own, and that."""
    if not images:
        findings.add(folders[0], "has no images", "put .jpg or .png files there")
    key_of = {path: _key(path, folders[0]) for path in images}
    keys = set(key_of.values())
    stored: dict[Key, Path] = {}
    for path in masks:
        if not is_mask_file(path):
            findings.add(path, "is a mask but not a PNG", "save it as PNG, which keeps the numbers")
        elif (first := stored.setdefault(_image_key(path, folders[1], keys), path)) != path:
            findings.add(path, f"belongs to the same image as {first.name}", "remove one of the two")
    of_any_kind = {_image_key(path, folders[1], keys) for path in masks}
    ending = "_mask" if folders[0] == folders[1] else ""
    usual = {
        image: folders[1] / image.relative_to(folders[0]).with_name(f"{image.stem}{ending}.png") for image in images
    }
    for image, key in key_of.items():
        if key not in of_any_kind:
            findings.add(image, "has no mask", f"add {usual[image]} or remove the image")
    mask_of = {image: stored.get(key, usual[image]) for image, key in key_of.items()}
    belonging = [path for path in masks if _belongs(path, _image_key(path, folders[1], keys), keys, stored)]
    pairs = paired(mask_of, belonging, findings, folders[0])
    return {image: mask for image, mask in pairs.items() if mask.is_file()}


def _belongs(path: Path, key: Key, keys: Collection[Key], stored: Mapping[Key, Path]) -> bool:
    """Whether it is the mask of its image, or of none, which is still to be named; others have been."""
    return stored.get(key, path) == path and (is_mask_file(path) or key not in keys)
