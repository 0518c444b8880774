"""Colours of classes, and the legend that names them, the same in every figure of labels or predictions."""

import colorsys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

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
    font = ImageFont.load_default(size)
    widths = [round(font.getlength(text)) + 3 * size for text in widest or [text for _, text in entries]]
    width = max(image.width, max(widths) + size)
    places, rows = _flow(widths, width - size)
    canvas = Image.new("RGB", (width, image.height + (2 * rows + 1) * size), "white")
    canvas.paste(image, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for (colour, text), (x, row) in zip(entries, places, strict=True):
        left, top = x + size, image.height + (2 * row + 1) * size
        if colour is not None:
            pen.rectangle((left, top, left + size, top + size), fill=colour)
        pen.text((left + size * 1.5, top + size / 2), text, fill=_INK, font=font, anchor="lm")
    return canvas


def shortened(name: str, longest: int = 40) -> str:
    """A name on one line of at most `longest` characters."""
    name = " ".join(name.split())
    return name if len(name) <= longest else name[: longest - 1] + "…"


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever is easier to read on `colour`."""
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else (255, 255, 255)


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
