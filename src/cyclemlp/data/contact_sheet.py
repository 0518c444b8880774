"""A contact sheet: some images of a data set with their labels, to check at a glance that the two fit."""

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

from PIL import Image, ImageDraw

from cyclemlp.data.datasets import ClassifiedDataset, ClassifiedSplit
from cyclemlp.data.drawing import (
    IGNORED,
    MAX_LEGEND,
    STRAY,
    Colour,
    colour_list,
    draw_mask,
    draw_objects,
    legend_name,
    shortened,
    with_legend,
)
from cyclemlp.data.formats.registry import AnyDataset
from cyclemlp.data.image_errors import ImageError
from cyclemlp.data.lettering import Lettering, drawn_name
from cyclemlp.data.masks import MaskDataset, MaskSplit
from cyclemlp.data.objects import DetectionDataset, DetectionSplit
from cyclemlp.data.pixel_rule import display_pixels
from cyclemlp.data.sampling import evenly_spaced
from cyclemlp.data.windows import middle_of, size_of

CELL_WIDTH = 320
_COLUMNS = 6
_GAP = 10
_TEXT_SIZE = 14
_CAPTION_HEIGHT = 22
_TRAIN_SHARE = 0.75
_MAX_ZOOM = 5.0
_EMPTY = (225, 225, 225)
_INK = (30, 30, 30)


def contact_sheet(dataset: AnyDataset, count: int) -> Image.Image | None:
    """At most `count` images, spread evenly over classes or files, training first; None if there are none.

    An image that cannot be read is a grey cell that says why.
    """
    chosen = choose(dataset, count)
    if not chosen:
        return None
    height = _cell_height([dataset.splits[split].images[index] for split, index in chosen])
    cells = [_cell(dataset, split, index, (CELL_WIDTH, height)) for split, index in chosen]
    columns = min(_COLUMNS, len(cells))
    rows = math.ceil(len(cells) / columns)
    step = (CELL_WIDTH + _GAP, height + _CAPTION_HEIGHT + _GAP)
    sheet = Image.new("RGB", (columns * step[0] + _GAP, rows * step[1] + _GAP), "white")
    for i, cell in enumerate(cells):
        sheet.paste(cell, (_GAP + i % columns * step[0], _GAP + i // columns * step[1]))
    entries = _legend(dataset, chosen)
    return with_legend(sheet, entries, _TEXT_SIZE) if entries else sheet


def choose(dataset: AnyDataset, count: int) -> list[tuple[str, int]]:
    """(split, index) of at most `count` images: three quarters from train, the rest from the other splits."""
    sizes = {name: len(split.images) for name, split in dataset.splits.items()}
    names = sorted(sizes, key=lambda name: (name != "train", name != "val"))
    chosen: list[tuple[str, int]] = []
    for i, name in enumerate(names):
        left = count - len(chosen)
        later = sum(sizes[other] for other in names[i + 1 :])
        share = min(sizes[name], max(math.ceil(left * _TRAIN_SHARE), left - later))
        split = dataset.splits[name]
        labels = split.labels if isinstance(split, ClassifiedSplit) else [0] * sizes[name]
        chosen += [(name, index) for index in _spread(labels, share)]
    return chosen


def _spread(labels: Sequence[int], count: int) -> list[int]:
    """`count` of the indices, spread evenly over the classes and within each class."""
    groups: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(label, []).append(index)
    members = evenly_spaced(list(groups.values()), min(count, len(groups)))
    rounds = sorted((turn, number) for number, group in enumerate(members) for turn in range(len(group)))
    quotas = Counter(number for _, number in rounds[:count])
    return [each for number, group in enumerate(members) for each in evenly_spaced(group, quotas[number])]


def _cell_height(images: Sequence[Path]) -> int:
    """That of an image with the median proportions."""
    ratios = []
    for path in images:
        with suppress(ImageError):
            height, width = size_of(path)
            ratios.append(height / width)
    return round(CELL_WIDTH * min(1.5, max(0.5, median(ratios or [0.75]))))


def _cell(dataset: AnyDataset, split_name: str, index: int, size: tuple[int, int]) -> Image.Image:
    """The image in the middle of its cell, with split, class and file name below."""
    cell = Image.new("RGB", (size[0], size[1] + _CAPTION_HEIGHT), "white")
    cell.paste(_EMPTY, (0, 0, *size))
    pen = ImageDraw.Draw(cell)
    lettering = Lettering(_TEXT_SIZE)
    try:
        drawn = _drawn(dataset, split_name, index, size)
        cell.paste(drawn, ((size[0] - drawn.width) // 2, (size[1] - drawn.height) // 2))
    except ImageError as error:
        reason = lettering.fitted(shortened(error.what), size[0])
        lettering.write(pen, (size[0] / 2, size[1] / 2), reason, _INK, centred=True)
    split = dataset.splits[split_name]
    name = split.images[index].name
    if isinstance(split, ClassifiedSplit):
        number = split.labels[index]
        name = f"{drawn_name(dataset.classes[number], number)}/{name}"
    caption = lettering.fitted(f"{split_name}  {name}", size[0])
    lettering.write(pen, (0, size[1] + 3 + _TEXT_SIZE / 2), caption, _INK)
    return cell


def _drawn(dataset: AnyDataset, split_name: str, index: int, size: tuple[int, int]) -> Image.Image:
    """The image with its labels, as large as fits into `size` (width, height); of a large one its middle.

    Raises ImageError.
    """
    split = dataset.splits[split_name]
    large = split.size_in_windows(index) if isinstance(split, MaskSplit) else None
    window = None if large is None else middle_of(large)
    whole = Image.fromarray(display_pixels(split.images[index], window))
    zoom = min(size[0] / whole.width, size[1] / whole.height, _MAX_ZOOM)
    width, height = (max(1, round(edge * zoom)) for edge in whole.size)
    small = whole.resize((width, height), Image.Resampling.BICUBIC)
    if isinstance(split, DetectionSplit):
        return draw_objects(small, split.records[index], dataset.classes)
    if not isinstance(split, MaskSplit):
        return small
    target = split.target(index) if window is None else split.window_target(index, window)
    return draw_mask(small, target, len(dataset.classes))


def _legend(dataset: AnyDataset, chosen: Sequence[tuple[str, int]]) -> list[tuple[Colour | None, str]]:
    """Colours of the classes; none if each image has one class or each object a colour of its own."""
    classes = dataset.classes
    if not classes or isinstance(dataset, ClassifiedDataset):
        return []
    if isinstance(dataset, DetectionDataset):
        outlined = all(dataset.splits[split].records[index].has_masks for split, index in chosen)
        if outlined and len(classes) == 1:
            return []
    entries: list[tuple[Colour | None, str]] = []
    shown = range(min(len(classes), MAX_LEGEND))
    entries += zip(colour_list(len(shown)), (legend_name(classes, number) for number in shown), strict=True)
    if len(classes) > MAX_LEGEND:
        entries.append((None, f"and {len(classes) - MAX_LEGEND} more"))
    if isinstance(dataset, MaskDataset):
        return [*entries, (STRAY, "no class"), (None, "unpainted: ignored")]
    return [*entries, (IGNORED, "ignored")]
