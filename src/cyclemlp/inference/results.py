"""What a prediction is: values to compute with, JSON, and a picture to look at."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's colours, told apart by colour-blind readers too, in an order that suits water and land.
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

Mask = npt.NDArray[np.uint8]


def palette(num_classes: int) -> npt.NDArray[np.uint8]:
    """One RGB colour per class, (K, 3); the same class id has the same colour in every picture."""
    colours = list(_OKABE_ITO[:num_classes])
    for i in range(len(colours), num_classes):
        lightness = (0.45, 0.62, 0.33)[i % 3]
        red, green, blue = colorsys.hls_to_rgb(i * _GOLDEN % 1, lightness, 0.65)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return np.array(colours, dtype=np.uint8).reshape(num_classes, 3)


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """The class of every pixel of an image."""

    mask: Mask
    """(H, W) uint8 class ids, in the orientation in which the image is shown."""
    classes: tuple[str, ...]
    """Name of each class id."""
    image: npt.NDArray[np.uint8]
    """(H, W, C) the image itself, which `draw` paints on."""

    @cached_property
    def shares(self) -> dict[str, float]:
        """Share of the image's pixels per class, adding up to 1."""
        counts = np.bincount(self.mask.reshape(-1), minlength=len(self.classes))
        return {name: int(n) / self.mask.size for name, n in zip(self.classes, counts, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """Task, size and class shares as JSON values."""
        height, width = self.mask.shape
        return {
            "task": "segmentation",
            "size": {"height": height, "width": width},
            "shares": dict(self.shares),
        }

    def class_image(self) -> Image.Image:
        """The mask as a palette image: it opens in colours, and its values are the class ids."""
        picture = Image.fromarray(self.mask)
        picture.putpalette(palette(len(self.classes)).tobytes())
        return picture

    def draw(self, opacity: float = 0.45, legend: bool = True) -> Image.Image:
        """The image with every class painted over it, outlines in full colour, and a legend below it.

        `opacity` in [0, 1] is that of the paint. The legend makes the picture higher (and wider, where the
        image is narrower than an entry).
        """
        colours = palette(len(self.classes))[self.mask]
        picture = np.array(Image.blend(as_rgb(self.image), Image.fromarray(colours), opacity))
        outline = _outlines(self.mask)
        picture[outline] = colours[outline]
        painted = Image.fromarray(picture)
        return _with_legend(painted, self.shares) if legend else painted


def as_rgb(image: npt.NDArray[np.uint8]) -> Image.Image:
    """The first three channels, or the first one as grey."""
    channels = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    return Image.fromarray(np.ascontiguousarray(channels))


def _outlines(mask: Mask) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbour is of another class, on both sides of the border."""
    outline = np.zeros(mask.shape, dtype=np.bool_)
    sideways, downwards = mask[:, 1:] != mask[:, :-1], mask[1:] != mask[:-1]
    outline[:, 1:] |= sideways
    outline[:, :-1] |= sideways
    outline[1:] |= downwards
    outline[:-1] |= downwards
    return outline


def _with_legend(picture: Image.Image, shares: dict[str, float]) -> Image.Image:
    """`picture` above rows of swatches with the name and share of each class."""
    colours = palette(len(shares))
    size = min(64, max(12, min(picture.size) // 36))
    font = ImageFont.load_default(size)
    entries = _entries(shares)
    # Room for any share, so that the frames of a video have pictures of one size.
    widths = [round(font.getlength(text.rpartition("  ")[0] + "  100.0 %")) + 3 * size for _, text in entries]
    width = max(picture.width, max(widths) + size)
    places, rows = _flow(widths, width - size)
    canvas = Image.new("RGB", (width, picture.height + (2 * rows + 1) * size), "white")
    canvas.paste(picture, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for (index, text), (x, row) in zip(entries, places, strict=True):
        left, top = x + size, picture.height + (2 * row + 1) * size
        if index is not None:
            pen.rectangle((left, top, left + size, top + size), fill=tuple(colours[index].tolist()))
        pen.text((left + size * 1.5, top + size / 2), text, fill=(30, 30, 30), font=font, anchor="lm")
    return canvas


def _entries(shares: dict[str, float]) -> list[tuple[int | None, str]]:
    """Class id and text of each line of the legend: all of few classes, else the largest ones present."""
    items = list(enumerate(shares.items()))
    if len(items) > MAX_LEGEND:
        items = sorted((item for item in items if item[1][1] > 0), key=lambda item: -item[1][1])
    shown = items[:MAX_LEGEND]
    entries: list[tuple[int | None, str]] = [(i, f"{_short(name)}  {_percent(s)}") for i, (name, s) in shown]
    rest = sum(share for _, (_, share) in items[MAX_LEGEND:])
    return [*entries, (None, f"others  {_percent(rest)}")] if rest else entries


def _short(name: str, longest: int = 40) -> str:
    name = " ".join(name.split())
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _percent(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.001 else f"{share * 100:.1f} %"


def _flow(widths: Sequence[int], room: int) -> tuple[list[tuple[int, int]], int]:
    """Left edge and row of each entry, set like words on lines of `room` pixels, and the number of rows."""
    places: list[tuple[int, int]] = []
    x, row = 0, 0
    for width in widths:
        if x and x + width > room:
            x, row = 0, row + 1
        places.append((x, row))
        x += width
    return places, row + 1
