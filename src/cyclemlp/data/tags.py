"""Names at boxes: inside the image, sized to it, and none on top of another."""

from collections.abc import Iterator, Sequence

from PIL import ImageDraw

from cyclemlp.data.lettering import Colour, Lettering

Box = tuple[float, float, float, float]


def tag_size(size: tuple[int, int]) -> int:
    """Height in pixels of the letters of names on an image (width, height)."""
    return min(72, max(10, min(size) // 40))


def write_tags(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], letter_size: int, tags: Sequence[tuple[Box, str, Colour]]
) -> None:
    """Write each text on its colour at its box, the first ones first; those that find no room are left out.

    Args:
        pen: draws on the image.
        size: width and height of the image.
        letter_size: height of the letters in pixels.
        tags: box (left, top, right, bottom), text and colour of each.
    """
    lettering = Lettering(letter_size)
    margin = max(2, letter_size // 5)
    texts = [lettering.fitted(text, size[0] - 1 - 2 * margin) for _, text, _ in tags]
    edges = [(lettering.length(text) + 2 * margin, letter_size + 2.0 * margin) for text in texts]
    places = place_tags([box for box, _, _ in tags], edges, size)
    for place, text, (_, _, colour) in zip(places, texts, tags, strict=True):
        if place is not None:
            pen.rectangle(place, fill=colour)
            lettering.write(pen, (place[0] + margin, (place[1] + place[3]) / 2), text, ink_on(colour))


def place_tags(boxes: Sequence[Box], edges: Sequence[tuple[float, float]], size: tuple[int, int]) -> list[Box | None]:
    """Where a tag of each width and height lies at its box: in the image, and not on those before; None for nowhere."""
    taken: list[Box] = []
    places: list[Box | None] = []
    for box, (width, height) in zip(boxes, edges, strict=True):
        place = next((each for each in _places(box, width, height, size) if not _covers_any(each, taken)), None)
        places.append(place)
        taken += [place] if place is not None else []
    return places


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever is easier to read on `colour`."""
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else (255, 255, 255)


def _places(box: Box, width: float, height: float, size: tuple[int, int]) -> Iterator[Box]:
    """Where the tag of a box may lie inside the image: above it, below, inside; at its left or right edge."""
    left, top, right, bottom = box
    for y in (top - height, bottom, top, bottom - height):
        for x in (left, right - width):
            x_inside = max(0.0, min(x, size[0] - 1 - width))
            if 0 <= y <= size[1] - 1 - height and width <= size[0] - 1:
                yield x_inside, y, x_inside + width, y + height


def _covers_any(tag: Box, others: Sequence[Box]) -> bool:
    return any(tag[0] <= o[2] and o[0] <= tag[2] and tag[1] <= o[3] and o[1] <= tag[3] for o in others)
