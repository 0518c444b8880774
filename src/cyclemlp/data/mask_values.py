"""What the values in the masks of a data set say about it: values that are not what they seem, as problems or notes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cyclemlp.data.images import ARRAY_SUFFIXES
from cyclemlp.data.masks import IGNORE_INDEX, MaskDataset, MaskSplit, masks_folder
from cyclemlp.data.measured_images import valid_pixels
from cyclemlp.data.palettes import Colour, is_ignored
from cyclemlp.data.problems import Problem, listed
from cyclemlp.data.vector_labels import VectorCounts
from cyclemlp.data.windows import SCENE_SUFFIXES

Counts = npt.NDArray[np.int64]  # pixels of each value 0 to 255

RARE = 1e-4
"""Share of the pixels below which a mask value may be an accident."""
_GREY_GAP = 17
"""Class numbers up to 255 that are all this far from each other are grey levels: 4 bits, scaled, have this step."""
_MANY_OBJECTS, _ENDS, _GAPLESS = 8, 3, 0.9
"""Masks number objects where one has more, their numbers have as many ends, and most of them hold all from 1 on."""
_MEASURED = ARRAY_SUFFIXES | SCENE_SUFFIXES
"""Of images of measurements: which of their bands are in use decides which pixels count."""
_SMOOTHED_VALUES, _SMOOTHED_SHARE = 8, 0.8
"""With this number of values between 0 and 255 on most of its pixels, a mask is a smoothed drawing."""


@dataclass(frozen=True)
class MaskValues:
    """The values of one mask."""

    counts: Counts
    colours: Mapping[int, Colour]
    transparent: tuple[int, ...]
    nodata: int = 0
    """Pixels that the file marks as no measurement."""
    objects: VectorCounts | None = None
    """Of areas that were drawn: how they fit the image."""
    own: Counts | None = None
    """Pixels of each class, and ignored ones, without those of the ground of other splits and those that the image
    hides; None where these are all."""
    hidden: int = 0
    """Pixels with a class that the image marks as transparent."""

    @property
    def present(self) -> list[int]:
        """The classes that occur, and 255."""
        return [int(value) for value in np.flatnonzero(self.counts)]

    @property
    def counted(self) -> list[int]:
        """The same without what does not count in this split."""
        return [int(value) for value in np.flatnonzero(self.counts if self.own is None else self.own)]


ValuesIn = Mapping[Path, MaskValues]


def values_of(split: MaskSplit, path: Path, image: Path | None = None) -> MaskValues:
    """The values of a mask; `counts` are by class, colours and transparency by stored number. Raises as `read_mask`."""
    counts, nodata, hidden = np.zeros(256, np.int64), 0, 0
    valid = None if image is None or image.suffix.lower() in _MEASURED else valid_pixels(image)
    colours: dict[int, Colour] = {}
    transparent: dict[int, None] = {}
    objects: VectorCounts | None = None
    own = None if image is None or (split.part is None and valid is None) else np.zeros(256, np.int64)
    top = 0
    for target, stored in split.stored_parts(path, image):
        if own is not None and image is not None:
            window = slice(top, top + target.shape[0]), slice(0, target.shape[1])
            kept = split.own(target, image, window)
            seen = None if valid is None else valid[window]
            if seen is not None and seen.shape == kept.shape:
                hidden += int((kept[~seen] != IGNORE_INDEX).sum())
                kept = np.where(seen, kept, np.uint8(IGNORE_INDEX))
            own += np.bincount(kept.ravel(), minlength=256)
            top += target.shape[0]
        counts += np.bincount(target.ravel(), minlength=256)
        nodata += 0 if stored.nodata is None else int(stored.nodata.sum())
        colours |= stored.colours
        transparent |= dict.fromkeys(stored.transparent)
        if stored.objects is not None:  # of strips only the pixels add up
            before = 0 if objects is None else objects.overlapping
            objects = stored.objects._replace(overlapping=stored.objects.overlapping + before)
    ignored = (0, IGNORE_INDEX) if split.zero_ignored else (IGNORE_INDEX,)
    marked = tuple(each for each in transparent if each not in ignored)
    return MaskValues(counts, colours, marked, nodata, objects, own, hidden)


def other_palettes(values_in: ValuesIn) -> list[Problem]:
    """The problem that a number has another colour in one mask than in another, if it has."""
    first: dict[int, tuple[Path, Colour]] = {}
    differing: list[tuple[Path, int]] = []
    for path, values in values_in.items():
        other = [n for n, colour in values.colours.items() if first.setdefault(n, (path, colour))[1] != colour]
        differing += [(path, number) for number in other[:1] if number != IGNORE_INDEX]
    if not differing:
        return []
    path, number = differing[0]
    seen, colour = first[number]
    further = f", and {len(differing) - 1} further masks differ as well" if differing[1:] else ""
    own = values_in[path].colours[number]
    what = f"has a palette of its own: {number} is the colour {own}, but {colour} in {seen}{further}"
    return [Problem(path, "", what, "give all masks one palette, so that a number means the same class in each")]


def transparent_numbers(split: str, values_in: ValuesIn) -> list[Problem]:
    """A note on numbers that masks mark as transparent, since whoever did may have meant that they do not count."""
    marked = {path: values.transparent for path, values in values_in.items() if values.transparent}
    if not marked:
        return []
    path, numbers = next(iter(marked.items()))
    further = f", as do {len(marked) - 1} further masks" if len(marked) > 1 else ""
    what = f"marks {listed(numbers)} as transparent{further}, which counts as a class like any other"
    return [Problem(path, split, what, "set those pixels to 255 if they are to be ignored")]


def nodata_pixels(split: str, values_in: ValuesIn) -> list[Problem]:
    """A note on pixels that masks mark as nodata, since tools do so with 0, which may have been a class."""
    marked = {path: values.nodata for path, values in values_in.items() if values.nodata}
    fix = "remove the nodata value from the files if it is a class"
    return _ignored_pixels(split, values_in, marked, "marks pixels as nodata", fix)


def hidden_pixels(split: str, values_in: ValuesIn) -> list[Problem]:
    """A note on pixels with a class that images mark as transparent, such as the background of objects cut out."""
    hidden = {path: values.hidden for path, values in values_in.items() if values.hidden}
    what = "gives classes to pixels that are transparent in its image"
    fix = "save the images without transparency if these pixels count"
    return _ignored_pixels(split, values_in, hidden, what, fix)


def _ignored_pixels(split: str, values_in: ValuesIn, ignored: Mapping[Path, int], what: str, fix: str) -> list[Problem]:
    """A note on the masks with ignored pixels, if there are any, and the share of these pixels."""
    if not ignored:
        return []
    total = sum(values.counts.sum() for values in values_in.values())
    further = f", as do {len(ignored) - 1} further masks" if len(ignored) > 1 else ""
    what += f"{further}, which are ignored: {sum(ignored.values()) / total:.1%} of all"
    return [Problem(next(iter(ignored)), split, what, fix)]


def objects_off_their_images(split: MaskSplit, name: str, values_in: ValuesIn) -> tuple[list[Problem], list[Problem]]:
    """Of areas that were drawn on images: files of which none lies on an image, and notes on others and on overlaps.

    `values_in` are by image.
    """
    mask_of = dict(zip(split.images, split.masks, strict=True))
    counted = {image: values.objects for image, values in values_in.items() if values.objects is not None}
    drawn = {mask_of[image] for image, counts in counted.items() if counts.outside < counts.objects}
    fix = "give the labels of this place, or correct the coordinate reference system of one of the two"
    problems, outside, overlapping = [], [], []
    for image, counts in counted.items():
        mask = mask_of[image]
        if counts.objects and mask not in drawn:
            what = f"has {counts.objects} objects, none of them on its image {image.name}"
            problems.append(Problem(mask, name, what, fix))
        elif counts.outside:
            outside.append((mask, f"{counts.outside} of {counts.objects} objects outside of its image {image.name}"))
        if counts.overlapping:
            overlapping.append((mask, f"objects of different classes that overlap in {counts.overlapping} pixels"))
    notes = [_first_of(outside, name, "they are left out"), _first_of(overlapping, name, "the last in the file counts")]
    return problems, [note for note in notes if note is not None]


def _first_of(found: list[tuple[Path, str]], split: str, meaning: str) -> Problem | None:
    if not found:
        return None
    further = f" (and {len(found) - 1} further files)" if found[1:] else ""
    return Problem(found[0][0], split, f"has {found[0][1]}{further}", meaning)


def palettes_by_number(dataset: MaskDataset, values_in: ValuesIn) -> list[Problem]:
    """A note that the numbers of masks with palettes are their classes, whatever the colours."""
    with_palette = [path for path, values in values_in.items() if values.colours]
    if not with_palette:
        return []
    what = "have palettes: the number of a pixel is its class, and the colours play no part"
    return [Problem(masks_folder(dataset), "", what, "to read them by colour, list the colours in classes.txt")]


def grey_levels(dataset: MaskDataset, totals: Counts) -> list[Problem]:
    """The problem that masks without named classes hold levels of grey, if they do."""
    present = np.flatnonzero(totals)
    between = present[(present > 0) & (present < IGNORE_INDEX)]
    if dataset.named or not len(between) or len(present) < 2:
        return []
    values = listed(present.tolist(), 6)
    if np.diff(present).min() >= _GREY_GAP:
        what = f"hold the values {values}, which are levels of grey and not class numbers"
        fix = "write the classes as 0, 1, 2, ... (255 means ignore), or name all in classes.txt"
        return [Problem(masks_folder(dataset), "", what, fix)]
    ends = totals[0] + totals[IGNORE_INDEX]
    smoothed = len(between) >= _SMOOTHED_VALUES and between[-1] > 128 and ends > _SMOOTHED_SHARE * totals.sum()
    if smoothed and totals[0] and totals[IGNORE_INDEX]:
        what = f"hold the values {values} between 0 and 255, as black-and-white drawings do that were smoothed"
        fix = "write every pixel as 0 or 1, without smoothing, resampling or JPEG"
        return [Problem(masks_folder(dataset), "", what, fix)]
    return []


def numbers_of_objects(dataset: MaskDataset, values_in: ValuesIn) -> list[Problem]:
    """The problem that masks without named classes number their objects: each holds all from 1 to an end of its own."""
    held = [[each for each in values.present if each not in (0, IGNORE_INDEX)] for values in values_in.values()]
    held = [numbers for numbers in held if numbers]
    ends = {numbers[-1] for numbers in held}
    gapless = sum(len(numbers) == numbers[-1] for numbers in held)
    if dataset.named or len(ends) < _ENDS or max(ends) <= _MANY_OBJECTS or gapless < _GAPLESS * len(held):
        return []
    what = f"hold the numbers from 1 to an end of their own, up to {max(ends)}, as masks do that number their objects"
    fix = "write 1 for every object, or train instance-segmentation on outlines"
    fix += "; if they are classes, name all in classes.txt"
    return [Problem(masks_folder(dataset), "", what, fix)]


def white_in_one_split(values_of_split: Mapping[str, ValuesIn]) -> list[Problem]:
    """The problem that masks of a split hold 0 and 255 alone, as drawings do, and those of another class numbers."""
    held = {name: set().union(*(each.present for each in values.values())) for name, values in values_of_split.items()}
    numbers = {name: sorted(values - {0, IGNORE_INDEX}) for name, values in held.items()}
    other = next((name for name, values in numbers.items() if values), None)
    if other is None:
        return []
    what = f"hold 0 and {IGNORE_INDEX} alone, but those of {other} {listed(numbers[other])}, so that {IGNORE_INDEX} is"
    fix = f"write one number for a class in all splits; if {IGNORE_INDEX} is ignored, add images of other classes"
    return [
        Problem(next(iter(values_of_split[name])).parent, name, f"{what} ignored in both", fix)
        for name, values in held.items()
        if values == {0, IGNORE_INDEX}
    ]


def white_in_some_masks(values_in: ValuesIn) -> list[Problem]:
    """A note that some masks of two classes hold 0 and 255 alone: there 255 may stand for class 1."""
    white = [path for path, values in values_in.items() if values.present == [0, IGNORE_INDEX]]
    held = set().union(*(values.present for values in values_in.values()))
    if not white or held - {0, IGNORE_INDEX} != {1}:
        return []
    subject = f"and {len(white) - 1} further masks hold" if white[1:] else "holds"
    what = f"{subject} 0 and {IGNORE_INDEX} alone where others hold 1, and {IGNORE_INDEX} is ignored in all"
    return [Problem(white[0], "", what, f"where {IGNORE_INDEX} stands for the class, write it as 1")]


def ignored_by_name(dataset: MaskDataset) -> list[Problem]:
    """A note that a class called `void` or the like is one, where no colours say that its pixels are ignored."""
    names = [name for name in dataset.classes if is_ignored(name)]
    if not names or any(split.palette or split.vectors for split in dataset.splits.values()):
        return []
    what = f"has a class called {names[0]}, which is learnt and scored as any other"
    return [Problem(dataset.root, "", what, f"--ignore-classes {names[0]} ignores it, and so does 255 in masks")]


def odd_values(root: Path, totals: Counts, values_in: ValuesIn) -> list[Problem]:
    """Values of masks without named classes that are rare, or missing below a higher one.

    `totals` are the pixels of each value in all masks, `values_in` the values of each.
    """
    pixels = totals[:IGNORE_INDEX]
    present = np.flatnonzero(pixels)
    rare = present[pixels[present] < RARE * totals.sum()].tolist()
    if rare:
        return [_rare(root, rare, int(pixels[rare].sum()), values_in)]
    if len(present) and len(present) <= present[-1]:
        unused = sorted(set(range(int(present[-1]))) - set(present.tolist()))
        what = f"hold no {listed(unused)}, but {present[-1]}, which makes {present[-1] + 1} classes"
        return [Problem(root, "", what, "number the classes 0, 1, 2, ... or name all in classes.txt")]
    return []


def _rare(root: Path, rare: list[int], pixels: int, values_in: ValuesIn) -> Problem:
    files = [path for path, values in values_in.items() if values.counts[rare].any()]
    values = "value" if len(rare) == 1 else "values"
    where = files[0].name if len(files) == 1 else f"{len(files)} files (such as {files[0].name})"
    what = f"hold the {values} {listed(rare)} only in {pixels} pixels of {where}"
    fix = (
        "if they come from smoothing or JPEG, save the masks as PNG without resampling or set those pixels to 255;"
        " if they are classes, name all in classes.txt"
    )
    return Problem(root, "", what, fix)


def turned_within_size(turned: Sequence[Path], split: str, labels: str, degrees: str = "180") -> list[Problem]:
    """A note that the orientation tag turns images in a way that their size does not show."""
    if not turned:
        return []
    subject = f"and {len(turned) - 1} further images are" if turned[1:] else "is"
    what = f"{subject} turned by {degrees} degrees or mirrored by the EXIF orientation"
    return [Problem(turned[0], split, what, f"{labels} on the turned image; --sheet draws them")]
