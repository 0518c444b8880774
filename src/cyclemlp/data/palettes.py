"""The colours of classes, for masks that are drawn in colours: `building 255 0 0` or `building #ff0000`, one a line.

Every colour of a mask has to be listed; nothing is matched to the nearest one, since a colour that nobody listed comes
from smoothing, from JPEG, or from a class that was forgotten.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cyclemlp.data.image_errors import ImageError
from cyclemlp.data.problems import FileError
from cyclemlp.documents import shown

IGNORED = 255
"""The class of pixels that are in no class."""
IGNORED_NAMES = frozenset({"ignore", "ignored", "void", "unlabeled", "unlabelled"})
"""A colour under one of these names, in any case, marks pixels that are ignored, and is no class."""
MAX_CLASSES = 255

_NUMBERS = r"(?P<red>\d{1,3})[\s,;]+(?P<green>\d{1,3})[\s,;]+(?P<blue>\d{1,3})"
_NAME_FIRST = re.compile(rf"(?P<name>.*?\S)[\s,;:=]+(?:{_NUMBERS}|#(?P<hex>[0-9a-fA-F]{{6}}))\s*")
_COLOUR_FIRST = re.compile(rf"(?:{_NUMBERS}|#(?P<hex>[0-9a-fA-F]{{6}}))[\s,;:=]+(?P<name>\S.*?)\s*")
_HEADER = frozenset({"r", "g", "b", "red", "green", "blue"})

Colour = tuple[int, ...]
"""Red, green and blue, 0 to 255."""


class ColouredName(NamedTuple):
    """A line of a list of classes."""

    name: str
    colour: Colour


@dataclass(frozen=True)
class Palette:
    """Which colour stands for which class."""

    lines: tuple[ColouredName, ...]
    """In the order of the file, with the ignored ones."""

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the file."""
        return tuple(line.name for line in self.lines if not is_ignored(line.name))

    @cached_property
    def ignored(self) -> tuple[Colour, ...]:
        """The colours of pixels that are in no class."""
        return tuple(line.colour for line in self.lines if is_ignored(line.name))

    def texts(self) -> tuple[str, ...]:
        """The lines of a file that lists them."""
        return tuple(f"{name} {' '.join(map(str, colour))}" for name, colour in self.lines)

    @cached_property
    def _codes(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        """The colours as numbers, rising, and the class of each."""
        number_of = {name: number for number, name in enumerate(self.classes)}
        class_of = {_code(colour): number_of.get(name, IGNORED) for name, colour in self.lines}
        codes = sorted(class_of)
        return np.array(codes, np.int32), np.array([class_of[code] for code in codes], np.uint8)

    def numbers(self, rgb: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[np.uint8]:
        """The class of each pixel of an RGB array (height, width, 3). Raises ImageError that names other colours."""
        known, classes = self._codes
        codes = rgb.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
        places = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        if (other := codes[known[places] != codes]).size:
            raise ImageError(path, *_unlisted(other))
        return classes[places]


def is_ignored(name: str) -> bool:
    """Whether a colour of this name marks pixels that are in no class."""
    return name.casefold() in IGNORED_NAMES


def show_colours(rgb: npt.NDArray[np.uint8], most: int = 3) -> str:
    """`255 0 0 (12 pixels), ...`: the most frequent colours of an array (..., 3)."""
    return _counted(rgb.reshape(-1, 3).astype(np.int32) @ np.array([65536, 256, 1], np.int32), most)


def read_palette(path: Path) -> Palette:
    """The palette in a text or CSV file. Raises FileError for one without colours."""
    palette = parse_palette(path, _lines(path))
    if palette is None:
        raise FileError(path, "has no colours", "write one class a line, such as `building 255 0 0`")
    return palette


def parse_palette(path: Path, lines: Sequence[str]) -> Palette | None:
    """The palette in the lines of a file; None where no line has a colour.

    A first line of titles, such as `name,r,g,b`, is left out. Raises FileError for lines without a colour among others
    with one, for numbers over 255, a colour of two classes, a class of two colours, and other than 2 to 255 classes.
    """
    filled = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if filled and _is_header(filled[0][1]):
        filled = filled[1:]
    found = [(number, line, _coloured(line)) for number, line in filled]
    if not any(coloured for *_, coloured in found):
        return None
    for number, line, coloured in found:
        if coloured is None or max(coloured.colour) > IGNORED:
            what = f"has no colour in line {number} ({shown(line)}), as others have"
            raise FileError(path, what, "write each as NAME RED GREEN BLUE, 0 to 255, or NAME #rrggbb")
    palette = Palette(tuple(coloured for *_, coloured in found if coloured))
    _check(path, palette)
    return palette


def from_texts(texts: Sequence[str]) -> Palette | None:
    """The palette of `Palette.texts`; None of none. Raises FileError."""
    return parse_palette(Path("the palette"), texts) if texts else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FileError(path, "is not UTF-8 text", "save it as UTF-8, one class per line") from error
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}", "check the path and its permissions") from error


def _is_header(line: str) -> bool:
    cells = next(csv.reader([line]), [])
    return len(cells) == 4 and len(_HEADER & {cell.strip().casefold() for cell in cells}) == 3


def _coloured(line: str) -> ColouredName | None:
    """The name and the colour of a line, in either order."""
    match = _NAME_FIRST.fullmatch(line) or _COLOUR_FIRST.fullmatch(line)
    if match is None or (match["name"].isdigit() and not match["hex"]):  # of four numbers either end may be the name
        return None
    text = match["hex"]
    colour = tuple(bytes.fromhex(text)) if text else tuple(map(int, match.group("red", "green", "blue")))
    return ColouredName(match["name"].strip("\"' "), colour)


def _check(path: Path, palette: Palette) -> None:
    name_of: dict[Colour, str] = {}
    for name, colour in palette.lines:
        if (other := name_of.setdefault(colour, name)) != name:
            what = f"gives the colour {' '.join(map(str, colour))} to both {shown(other)} and {shown(name)}"
            raise FileError(path, what, "give each class a colour of its own")
    repeated = [name for place, name in enumerate(palette.classes) if name in palette.classes[:place]]
    if repeated:
        raise FileError(path, f"has {repeated[0]!r} more than once", "give each class one line and one colour")
    if not 2 <= len(palette.classes) <= MAX_CLASSES:
        what = f"names {len(palette.classes)} classes with colours"
        raise FileError(path, what, "write 2 to 255; ignore and void are no classes")


def _code(colour: Colour) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _unlisted(codes: npt.NDArray[Any]) -> tuple[str, str]:
    count = len(np.unique(codes))
    what = f"has {count} colour{'s' * (count > 1)} that no class has: {_counted(codes)}"
    fix = "list it with its class, or as `ignore RED GREEN BLUE`"
    if (codes >> 16 == codes & 255).all() and (codes >> 16 == codes >> 8 & 255).all():
        fix += "; where masks hold class numbers, name the classes in classes.txt without colours"
    if count > MAX_CLASSES:
        fix = "draw it without smoothing, resampling or JPEG, in the colours of its classes alone"
    return what, fix


def _counted(codes: npt.NDArray[Any], most: int = 3) -> str:
    values, counts = np.unique(codes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown_ones = [
        f"{int(values[place]) >> 16} {int(values[place]) >> 8 & 255} {int(values[place]) & 255}"
        f" ({counts[place]} pixel{'s' * bool(counts[place] > 1)})"
        for place in order[:most]
    ]
    return ", ".join(shown_ones) + (", ..." if len(values) > most else "")
