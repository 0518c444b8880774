"""How a data set was understood, in words: what validates, and of masks what pairs the files and what values mean."""

import re
from collections.abc import Mapping
from pathlib import Path

from cyclemlp.data.datasets import ClassifiedSplit
from cyclemlp.data.folders import name_key
from cyclemlp.data.held_out import AnySplit, HoldOut
from cyclemlp.data.masks import IGNORE_INDEX, MaskDataset, MaskSplit
from cyclemlp.data.problems import DataRequest, listed

_MOST = 8
"""Classes that are listed with their values."""


def understanding(dataset: MaskDataset, pairing: str, request: DataRequest) -> dict[str, str]:
    """Of a sound data set: `pairs`, `classes` and `splits`, each a sentence without its full stop."""
    splits = {name: split for name, split in dataset.splits.items() if split.images}
    if not splits:
        return {}
    first = next(iter(splits.values()))
    return {
        "pairs": f"{pairing}{_endings(splits)}, such as {_example(dataset.root, first)}",
        "classes": _classes(dataset, first),
        "splits": splits_in_words(splits, request.hold_out),
    }


def _example(root: Path, split: MaskSplit) -> str:
    names = (
        path.relative_to(root) if path.is_relative_to(root) else path for path in (split.images[0], split.masks[0])
    )
    return " with ".join(name.as_posix() for name in names)


def _endings(splits: Mapping[str, MaskSplit]) -> str:
    """What the names of masks have after those of their images."""
    found = {
        mask.stem[len(image.stem) :]
        for split in splits.values()
        for image, mask in zip(split.images, split.masks, strict=True)
        if name_key(mask.stem) != name_key(image.stem) and re.fullmatch(rf"{re.escape(image.stem)}[_-]\w+", mask.stem)
    }
    return f", names of masks ending in {listed(sorted(found))}" if found else ""


def _classes(dataset: MaskDataset, split: MaskSplit) -> str:
    names = dataset.classes
    if split.vectors is not None:
        by = f"the property {split.vectors.field}" if split.vectors.field else "one for all"
        return f"areas on a map, by {by}; each pixel has that of the area its centre lies in: {listed(names, _MOST)}"
    if split.palette is not None:
        colours = [f"{name} {' '.join(map(str, colour))}" for name, colour in split.palette.lines]
        return f"by the colours of masks: {listed(colours, _MOST)}"
    if split.white_class:
        return f"0 in a mask is {names[0]}, {IGNORE_INDEX} is {names[1]}"
    start = int(split.zero_ignored)
    numbers = [f"{number} is {name}" for number, name in enumerate(names, start)]
    ignored = f"{'0 and ' * start}{IGNORE_INDEX} {'are' if start else 'is'} ignored"
    counted = "" if dataset.named else "; nothing names them, so they are counted"
    return f"by the numbers in masks: {listed(numbers, _MOST)}; {ignored}{counted}"


def splits_in_words(splits: Mapping[str, AnySplit], how: HoldOut | None) -> str:
    """What validates, and the images of each split."""
    counts = ", ".join(f"{name} {len(split.images)}" for name, split in splits.items())
    if how is None:
        return f"as the data has them: {counts}"
    if (part := splits["val"].part if "val" in splits else None) is not None:
        by = f"{part.blocks.describe()} and seed {how.seed}"
        both = "" if isinstance(splits["val"], ClassifiedSplit) else "; an image can be in both"
        return f"--val-share {how.share:g} by {by}{both}: {counts}"
    return f"--val-share {how.share:g} by a hash of the names and seed {how.seed}: {counts}"
