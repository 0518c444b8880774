"""Labels drawn on small copies of their images: boxes, outlines and masks, sharp at the size they are shown at."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from cyclemlp.data.legend import Colour, colour_list, ink_on, palette, shortened
from cyclemlp.data.masks import IGNORE_INDEX
from cyclemlp.data.objects import Record
from cyclemlp.data.outlines import Outline, Polygons, draw_patch

STRAY: Colour = (255, 0, 255)
"""The colour of mask values that are not a class."""
IGNORED: Colour = (150, 150, 150)
"""The colour of objects that are to be ignored."""
_OPACITY = 0.45
_PAINT = 0.3
"""Opacity of masks, which cover the whole image."""
_TAG_SIZE = 13
_Box = tuple[float, float, float, float]


def draw_mask(image: Image.Image, numbers: npt.NDArray[np.uint8], num_classes: int) -> Image.Image:
    """The image with its classes, given at full size (H, W), painted over it; ignored pixels stay as they are."""
    small = np.asarray(Image.fromarray(numbers).resize(image.size, Image.Resampling.NEAREST))
    colours = np.full((256, 3), STRAY, np.uint8)
    colours[:num_classes] = palette(num_classes)
    painted = np.array(Image.blend(image, Image.fromarray(colours[small]), _PAINT))
    edges = borders(small)
    painted[edges] = colours[small[edges]]
    return Image.fromarray(np.where((small == IGNORE_INDEX)[..., None], np.asarray(image), painted))


def borders(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbour is of another class, on both sides of the border."""
    border = np.zeros(mask.shape, dtype=np.bool_)
    sideways, downwards = mask[:, 1:] != mask[:, :-1], mask[1:] != mask[:-1]
    border[:, 1:] |= sideways
    border[:, :-1] |= sideways
    border[1:] |= downwards
    border[:-1] |= downwards
    return border


def draw_objects(image: Image.Image, record: Record, classes: Sequence[str]) -> Image.Image:
    """The image, a copy of any size, with the outline or box of each object, and its name if there is room.

    Large objects are drawn first, so that small ones are on top. For a single class no names are drawn, and each
    outline has a colour of its own, which separates objects that touch.
    """
    drawn = image.copy()
    scale = (image.width / record.size[1], image.height / record.size[0])
    order = np.argsort(-record.areas, kind="stable").tolist()
    single = len(classes) == 1
    of_class = colour_list(len(classes))
    colours = [IGNORED if record.crowd[i] else of_class[int(label)] for i, label in enumerate(record.labels)]
    paints = colour_list(max(8, len(order))) if single else colours
    for i in order:
        outline = record.segmentations[i]
        if outline is not None and not record.crowd[i]:
            _paint(drawn, outline, record.size, paints[i])
    pen = ImageDraw.Draw(drawn)
    boxes = [_scaled(record.boxes_xyxy[i].tolist(), scale) for i in range(len(order))]
    for i in order:
        if record.segmentations[i] is None or record.crowd[i]:
            pen.rectangle(boxes[i], outline=colours[i], width=2)
    if not single:
        names = ["ignored" if record.crowd[i] else classes[int(label)] for i, label in enumerate(record.labels)]
        _write_names(pen, image.size, [(boxes[i], names[i], colours[i]) for i in order])
    return drawn


def _scaled(box: Sequence[float], scale: tuple[float, float]) -> _Box:
    left, top, right, bottom = box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1]
    return left, top, max(left, right - 1), max(top, bottom - 1)


def _paint(image: Image.Image, outline: Outline, size: tuple[int, int], colour: Colour) -> None:
    """Fill the outline, and draw its edge in full colour."""
    layer = Image.new("L", image.size)
    scale = np.array([image.width / size[1], image.height / size[0]])
    if isinstance(outline, Polygons):
        pen = ImageDraw.Draw(layer)
        for ring in outline.rings:
            points = [(float(x), float(y)) for x, y in ring.reshape(-1, 2) * scale]
            pen.polygon(points, fill=round(255 * _OPACITY), outline=255)
    else:
        patch = draw_patch(outline, size)
        height, width = patch.bitmap.shape
        corner = np.array([patch.left, patch.top]) * scale
        wide, high = (max(1, round(float(edge))) for edge in np.array([width, height]) * scale)
        part = Image.fromarray(patch.bitmap * np.uint8(255)).resize((wide, high), Image.Resampling.BOX)
        layer.paste(_with_edge(part), (round(float(corner[0])), round(float(corner[1]))))
    image.paste(colour, (0, 0), layer)


def _with_edge(mask: Image.Image) -> Image.Image:
    """The mask, half transparent inside and opaque at its edge."""
    inside = np.pad(np.asarray(mask) > 127, 1)
    core = inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    alpha = np.where(core, round(255 * _OPACITY), 255) * inside[1:-1, 1:-1]
    return Image.fromarray(alpha.astype(np.uint8))


def _write_names(pen: ImageDraw.ImageDraw, size: tuple[int, int], objects: Sequence[tuple[_Box, str, Colour]]) -> None:
    """Each name above its box, within the image; one that would cover another is left out (the legend has it)."""
    font = ImageFont.load_default(_TAG_SIZE)
    taken: list[_Box] = []
    for (left, top, _, _), name, colour in objects:
        text = shortened(name, 24)
        width, height = font.getlength(text) + 6, _TAG_SIZE + 4
        x = max(0.0, min(left, size[0] - width))
        y = top - height if top >= height else top
        tag = (x, y, x + width, y + height)
        if any(tag[0] < b[2] and b[0] < tag[2] and tag[1] < b[3] and b[1] < tag[3] for b in taken):
            continue
        taken.append(tag)
        pen.rectangle(tag, fill=colour)
        pen.text((x + 3, y + height / 2), text, fill=ink_on(colour), font=font, anchor="lm")
