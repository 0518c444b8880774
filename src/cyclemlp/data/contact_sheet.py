"""A contact sheet: some pictures of a data set with their labels, to see at a glance whether the two fit."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image, ImageDraw, ImageFont

from cyclemlp.data.images import ImageError, image_size, read_image
from cyclemlp.data.label_drawing import IGNORED, STRAY, draw_mask, draw_objects
from cyclemlp.data.legend import MAX_LEGEND, Colour, colour_list, shortened, with_legend
from cyclemlp.data.masks import read_target
from cyclemlp.data.objects import Record
from cyclemlp.data.sampling import evenly_spaced

CELL_WIDTH = 320
_COLUMNS = 6
_GAP = 10
_TEXT_SIZE = 14
_CAPTION_HEIGHT = 22
_TRAIN_SHARE = 0.75
_LARGEST_ZOOM = 5.0
_EMPTY = (225, 225, 225)
_INK = (30, 30, 30)


@dataclass(frozen=True)
class MaskLabel:
    """The file of the classes of a picture's pixels."""

    path: Path
    zero_ignored: bool = False


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """A picture and what is known of it: its class, its objects or the classes of its pixels."""

    image: Path
    label: str | Record | MaskLabel


def contact_sheet(
    pictures: Mapping[str, Sequence[LabelledImage]], classes: Sequence[str], count: int
) -> Image.Image | None:
    """`count` pictures at most, spread evenly over classes or files, training first; None where there is none.

    `pictures` are those of each split. A picture that cannot be read is a grey cell that says why.
    """
    chosen = choose(pictures, count)
    if not chosen:
        return None
    height = _cell_height([picture for _, picture in chosen])
    cells = [_cell(split, picture, classes, (CELL_WIDTH, height)) for split, picture in chosen]
    columns = min(_COLUMNS, len(cells))
    rows = math.ceil(len(cells) / columns)
    step = (CELL_WIDTH + _GAP, height + _CAPTION_HEIGHT + _GAP)
    sheet = Image.new("RGB", (columns * step[0] + _GAP, rows * step[1] + _GAP), "white")
    for i, cell in enumerate(cells):
        sheet.paste(cell, (_GAP + i % columns * step[0], _GAP + i // columns * step[1]))
    entries = _legend([picture for _, picture in chosen], classes)
    return with_legend(sheet, entries, _TEXT_SIZE) if entries else sheet


def choose(pictures: Mapping[str, Sequence[LabelledImage]], count: int) -> list[tuple[str, LabelledImage]]:
    """(split, picture) of `count` pictures or all there are: three quarters of train, then of the other splits."""
    names = sorted(pictures, key=lambda name: (name != "train", name != "val"))
    chosen: list[tuple[str, LabelledImage]] = []
    for i, name in enumerate(names):
        left = count - len(chosen)
        later = sum(len(pictures[other]) for other in names[i + 1 :])
        share = min(len(pictures[name]), max(math.ceil(left * _TRAIN_SHARE), left - later))
        chosen += [(name, picture) for picture in _spread(pictures[name], share)]
    return chosen


def _spread(pictures: Sequence[LabelledImage], count: int) -> list[LabelledImage]:
    """`count` of the pictures, evenly over the classes of whole pictures, where they have such, and within each."""
    groups: dict[str, list[LabelledImage]] = {}
    for picture in pictures:
        groups.setdefault(picture.label if isinstance(picture.label, str) else "", []).append(picture)
    members = evenly_spaced(list(groups.values()), min(count, len(groups)))
    quotas = [0] * len(members)
    while sum(quotas) < min(count, sum(map(len, members))):
        smallest = min((i for i, group in enumerate(members) if quotas[i] < len(group)), key=lambda i: quotas[i])
        quotas[smallest] += 1
    return [each for group, quota in zip(members, quotas, strict=True) for each in evenly_spaced(group, quota)]


def _cell_height(pictures: Sequence[LabelledImage]) -> int:
    """That of a picture of the usual proportions."""
    ratios = []
    for picture in pictures:
        try:
            height, width = image_size(picture.image)
        except ImageError:
            continue
        ratios.append(height / width)
    return round(CELL_WIDTH * min(1.5, max(0.5, median(ratios or [0.75]))))


def _cell(split: str, picture: LabelledImage, classes: Sequence[str], size: tuple[int, int]) -> Image.Image:
    """The picture in the middle of its cell, with split, class and file name below."""
    cell = Image.new("RGB", (size[0], size[1] + _CAPTION_HEIGHT), "white")
    cell.paste(_EMPTY, (0, 0, *size))
    pen = ImageDraw.Draw(cell)
    font = ImageFont.load_default(_TEXT_SIZE)
    try:
        drawn = _drawn(picture, classes, size)
        cell.paste(drawn, ((size[0] - drawn.width) // 2, (size[1] - drawn.height) // 2))
    except ImageError as error:
        pen.text((size[0] / 2, size[1] / 2), shortened(error.what), fill=_INK, font=font, anchor="mm")
    name = f"{picture.label}/{picture.image.name}" if isinstance(picture.label, str) else picture.image.name
    pen.text((0, size[1] + 3), _fitting(f"{split}  {name}", font, size[0]), fill=_INK, font=font)
    return cell


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, its middle left out where it is too long: class and number stand at the ends."""
    keep = len(text)
    shown = text
    while font.getlength(shown) > width:
        keep -= 1
        shown = f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"
    return shown


def _drawn(picture: LabelledImage, classes: Sequence[str], size: tuple[int, int]) -> Image.Image:
    """The picture with its labels, as large as fits into `size` (width, height). Raises ImageError."""
    whole = Image.fromarray(read_image(picture.image))
    zoom = min(size[0] / whole.width, size[1] / whole.height, _LARGEST_ZOOM)
    small = whole.resize(
        (max(1, round(whole.width * zoom)), max(1, round(whole.height * zoom))), Image.Resampling.BICUBIC
    )
    if isinstance(picture.label, Record):
        return draw_objects(small, picture.label, classes)
    if isinstance(picture.label, MaskLabel):
        numbers = read_target(picture.label.path, zero_ignored=picture.label.zero_ignored)
        return draw_mask(small, numbers, len(classes))
    return small


def _legend(pictures: Sequence[LabelledImage], classes: Sequence[str]) -> list[tuple[Colour | None, str]]:
    """Colours of the classes; none where whole pictures have one, or each object a colour of its own."""
    labels = [picture.label for picture in pictures]
    outlined = all(isinstance(label, Record) and label.has_masks for label in labels)
    if not classes or isinstance(labels[0], str) or (outlined and len(classes) == 1):
        return []
    entries: list[tuple[Colour | None, str]] = []
    entries += zip(colour_list(MAX_LEGEND), map(shortened, classes), strict=False)
    if len(classes) > MAX_LEGEND:
        entries.append((None, f"and {len(classes) - MAX_LEGEND} more"))
    if isinstance(labels[0], MaskLabel):
        return [*entries, (STRAY, "no class"), (None, "unpainted: ignored")]
    return [*entries, (IGNORED, "ignored")]
