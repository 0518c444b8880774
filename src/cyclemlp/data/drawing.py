"""Colours of classes, legends, and labels drawn on images: the same in every figure of labels or predictions.

Boxes, outlines and masks of a data set are drawn on small copies of its images, sharp at the size they are shown at.
"""

import colorsys
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cyclemlp.data.lettering import Colour as Colour
from cyclemlp.data.lettering import Lettering, drawn_name
from cyclemlp.data.masks import IGNORE_INDEX
from cyclemlp.data.objects import Record
from cyclemlp.data.outlines import Outline, Polygons, draw_patch, near_image
from cyclemlp.data.tags import Box, write_tags

Pixel = TypeVar("Pixel", np.uint8, np.bool_)

# Okabe and Ito's colours, which colour-blind readers can distinguish, in an order that suits water and land.
_OKABE_ITO = (
    (0, 114, 178),
    (0, 158, 115),
    (230, 159, 0),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (110, 110, 110),
)
_GOLDEN = 0.618034  # steps of this share of the circle never come near an earlier hue
MAX_LEGEND = 24
_INK = (30, 30, 30)
STRAY: Colour = (255, 0, 255)
"""The colour of mask values that are not a class."""
IGNORED: Colour = (150, 150, 150)
"""The colour of objects that are to be ignored."""
_OPACITY = 0.45
_PAINT = 0.3
"""Opacity of masks, which cover the whole image."""
_TAG_SIZE = 13


def as_rgb(image: npt.NDArray[np.uint8]) -> Image.Image:
    """The first three channels of an image (H, W, C), or the first one as grey."""
    channels = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    return Image.fromarray(np.ascontiguousarray(channels))


def side_by_side(left: Image.Image, right: Image.Image | npt.NDArray[np.uint8]) -> Image.Image:
    """Two images of one height as one."""
    return Image.fromarray(np.concatenate([np.asarray(left), np.asarray(right)], axis=1))


def palette(num_classes: int) -> npt.NDArray[np.uint8]:
    """One RGB colour per class, (K, 3); the same class id has the same colour in every figure."""
    colours = list(_OKABE_ITO[:num_classes])
    for i in range(len(colours), num_classes):
        lightness = (0.45, 0.62, 0.33)[i % 3]
        red, green, blue = colorsys.hls_to_rgb(i * _GOLDEN % 1, lightness, 0.65)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return np.array(colours, dtype=np.uint8).reshape(num_classes, 3)


def colour_list(num_classes: int) -> list[Colour]:
    """The palette in the form that Pillow accepts."""
    return [(int(red), int(green), int(blue)) for red, green, blue in palette(num_classes)]


def with_legend(
    image: Image.Image, entries: Sequence[tuple[Colour | None, str]], size: int, widest: Sequence[str] | None = None
) -> Image.Image:
    """`image` above rows of entries, each a swatch of `size` pixels and a text; wider if an entry needs it.

    `widest` are texts to reserve room for instead of those of the entries.
    """
    lettering = Lettering(size)
    widths = [round(lettering.length(text)) + 3 * size for text in widest or [text for _, text in entries]]
    width = max(image.width, max(widths) + size)
    places, rows = _flow(widths, width - size)
    canvas = Image.new("RGB", (width, image.height + (2 * rows + 1) * size), "white")
    canvas.paste(image, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for (colour, text), (x, row) in zip(entries, places, strict=True):
        left, top = x + size, image.height + (2 * row + 1) * size
        if colour is not None:
            pen.rectangle((left, top, left + size, top + size), fill=colour)
        lettering.write(pen, (left + size * 1.5, top + size / 2), text, _INK)
    return canvas


def shortened(name: str, longest: int = 40) -> str:
    """A name on one line of at most `longest` characters."""
    name = " ".join(name.split())
    return name if len(name) <= longest else name[: longest - 1] + "…"


def legend_name(classes: Sequence[str], number: int) -> str:
    """The name of a class as drawings show it: on one line, short, in letters that there is a font for."""
    return shortened(drawn_name(classes[number], number))


def _flow(widths: Sequence[int], room: int) -> tuple[list[tuple[int, int]], int]:
    """Left edge and row of each entry, wrapped like words on lines of `room` pixels, and the number of rows."""
    places: list[tuple[int, int]] = []
    x, row = 0, 0
    for width in widths:
        if x and x + width > room:
            x, row = 0, row + 1
        places.append((x, row))
        x += width
    return places, row + 1


def draw_mask(image: Image.Image, numbers: npt.NDArray[np.uint8], num_classes: int) -> Image.Image:
    """The image with its classes, given at full size (H, W), painted over it; ignored pixels stay as they are."""
    small = np.asarray(Image.fromarray(numbers).resize(image.size, Image.Resampling.NEAREST))
    colours = np.full((256, 3), STRAY, np.uint8)
    colours[:num_classes] = palette(num_classes)
    painted = paint_classes(image, small, colours, _PAINT)
    return Image.fromarray(np.where((small == IGNORE_INDEX)[..., None], np.asarray(image), painted))


def paint_classes(
    image: Image.Image, mask: npt.NDArray[np.uint8], colours: npt.NDArray[np.uint8], opacity: float
) -> npt.NDArray[np.uint8]:
    """The image (H, W, 3) with the colour of each pixel's class painted over it, borders of classes in full colour."""
    paint = colours[mask]
    painted = np.array(Image.blend(image, Image.fromarray(paint), opacity))
    borders = np.any([mask != other for other in _neighbours(np.pad(mask, 1, mode="edge"))], axis=0)
    painted[borders] = paint[borders]
    return painted


def _neighbours(padded: npt.NDArray[Pixel]) -> tuple[npt.NDArray[Pixel], ...]:
    """Those above, below, left and right of every pixel inside a margin of one."""
    return padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]


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
        names = ["ignored" if record.crowd[i] else legend_name(classes, int(k)) for i, k in enumerate(record.labels)]
        tags = [(boxes[i], shortened(names[i], 24), colours[i]) for i in order]
        write_tags(pen, image.size, _TAG_SIZE, tags)  # what finds no room is in the legend
    return drawn


def _scaled(box: Sequence[float], scale: tuple[float, float]) -> Box:
    left, top, right, bottom = box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1]
    return left, top, max(left, right - 1), max(top, bottom - 1)


def _paint(image: Image.Image, outline: Outline, size: tuple[int, int], colour: Colour) -> None:
    """Fill the outline, and draw its edge in full colour."""
    layer = Image.new("L", image.size)
    scale = np.array([image.width / size[1], image.height / size[0]])
    if isinstance(outline, Polygons):
        pen = ImageDraw.Draw(layer)
        for ring in outline.rings:
            points = [(float(x), float(y)) for x, y in near_image(ring.reshape(-1, 2), size) * scale]
            if len(points) > 1:
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
    inside = np.asarray(mask) > 127
    core = np.all(_neighbours(np.pad(inside, 1)), axis=0)
    return Image.fromarray((np.where(core, round(255 * _OPACITY), 255) * inside).astype(np.uint8))
