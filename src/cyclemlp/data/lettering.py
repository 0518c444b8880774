"""Text on images, in any script that a font on this machine has.

Most letters come from DejaVu Sans, which matplotlib ships and many systems have: Latin, Greek, Cyrillic, Arabic, Hebrew
and more. Letters that it lacks, such as Chinese or Devanagari, come from the fonts of the system. What no font has is
never an empty box: a class is drawn by its number (`drawn_name`), other text with question marks, and the log says so.
"""

import logging
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont

Colour = tuple[int, int, int]

_BY_NAME = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf")
"""Fonts with many letters, which Pillow finds in the folders of the system."""
_PILLOWS = ""
"""Stands for the font inside Pillow: ASCII and little else."""
_LESS_LIKED = ("bold", "italic", "oblique", "mono", "light", "thin", "black", "condensed", "serif")
_NEVER = ("lastresort", "adobeblank", "notdef")  # fonts that have every letter, as a box
_NO_LETTER = "\uffff"
"""A character that no font has: what is drawn like it is missing."""
_PROBE_SIZE = 24
_INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}
_fonts_of_scripts: dict[str, str | None] = {}
_told: set[str] = set()
_log = logging.getLogger(__name__)


class Lettering:
    """Text of one size in pixels. Runs of letters from different fonts stand on one line."""

    def __init__(self, size: int) -> None:
        self.size = size

    def length(self, text: str) -> float:
        """Width of the text in pixels."""
        return sum(font.getlength(run) for font, run in self._runs(text))

    def write(
        self, pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, fill: Colour, *, centred: bool = False
    ) -> None:
        """Write the text to the right of `place` (x, y), or around it if `centred`; y is the middle of the letters."""
        x, y = place
        x -= self.length(text) / 2 if centred else 0
        ascent, descent = self._font(_base()).getmetrics()
        for font, run in self._runs(text):
            pen.text((x, y + (ascent - descent) / 2), run, fill=fill, font=font, anchor="ls")
            x += font.getlength(run)

    def fitted(self, text: str, width: float) -> str:
        """The text, its middle left out if it is too long: what distinguishes names is often at the ends."""
        keep, shown = len(text), text
        while keep and self.length(shown) > width:
            keep -= 1
            shown = f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"
        return shown

    def _runs(self, text: str) -> list[tuple[ImageFont.FreeTypeFont, str]]:
        sources = list(_sources(text))
        found = []
        for file, group in groupby(zip(sources, text, strict=True), key=lambda pair: pair[0]):
            run = "".join(letter for _, letter in group)
            found.append((self._font(file or _base()), "?" * len(run) if file is None else run))
        return found

    def _font(self, file: str) -> ImageFont.FreeTypeFont:
        font = _opened(file, self.size)
        assert font is not None  # it has been opened to look for the letters
        return font


def drawn_name(name: str, number: int) -> str:
    """The name of a class as it is drawn: itself, or "class 3" where no font has its letters."""
    return f"class {number}" if None in _sources(name) else name


def families_of(texts: Iterable[str]) -> list[str]:
    """Names of the fonts that matplotlib needs for these texts, after registering them with it."""
    from matplotlib import font_manager

    files = {file for text in texts for file in _sources(text) if file} - {_base()}
    families = []
    for file in sorted(files):
        font_manager.fontManager.addfont(file)
        families.append(font_manager.FontProperties(fname=file).get_name())
    return ["DejaVu Sans", *families]


def _sources(text: str) -> Iterator[str | None]:
    """The font of each letter; that of the letter before for marks, spaces and joiners; None where there is none."""
    last: str | None = _base()
    for letter in text:
        category = unicodedata.category(letter)
        joins = category in _INVISIBLE or category.startswith("M")
        if not (joins and last is not None and (category in _INVISIBLE or _has(last, letter))):
            last = _font_of(letter)
        yield last
        if last is None:
            last = _base()


@lru_cache(4096)
def _font_of(letter: str) -> str | None:
    if unicodedata.category(letter) in _INVISIBLE or _has(_base(), letter):
        return _base()
    script = _script(letter)
    file = _font_of_script(script, letter)
    if file is not None and _has(file, letter):
        return file
    _tell_missing(script, letter)
    return None


def _script(letter: str) -> str:
    """The first word of the name of a letter, such as "CJK" or "DEVANAGARI"; for symbols, their category."""
    category = unicodedata.category(letter)
    return unicodedata.name(letter, category).split()[0] if category[0] in "LM" else category


def _font_of_script(script: str, letter: str) -> str | None:
    """The first font that has the first letter asked for: a search for each letter would take long."""
    if script not in _fonts_of_scripts:
        _fonts_of_scripts[script] = next((file for file in _of_the_system() if _has(file, letter)), None)
    return _fonts_of_scripts[script]


def _tell_missing(script: str, letter: str) -> None:
    if script in _told:
        return
    _told.add(script)
    _log.warning(
        "no font on this machine has letters such as %s (%s): classes with such names are drawn as class N, "
        "their place in the list of classes, from 0. Install a font that has the letters, for example Noto Sans",
        letter,
        script,
    )


@cache
def _base() -> str:
    """The font of most letters."""
    shipped = _of_matplotlib()
    return next((name for name in (*shipped, *_BY_NAME) if _opened(name, _PROBE_SIZE) is not None), _PILLOWS)


def _of_matplotlib() -> Sequence[str]:
    """Its DejaVu Sans, found without importing it, which takes a second."""
    try:
        spec = find_spec("matplotlib")
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        return ()
    return (str(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"),)


@cache
def _of_the_system() -> Sequence[str]:
    """Other fonts, regular and large ones first, since those have many letters."""
    try:
        from matplotlib.font_manager import findSystemFonts
    except ModuleNotFoundError:
        return tuple(name for name in _BY_NAME if _opened(name, _PROBE_SIZE) is not None)
    files = [Path(file) for file in findSystemFonts()]
    names = {file: file.name.lower() for file in files if file.is_file()}
    liked = [file for file, name in names.items() if not any(word in name for word in _NEVER)]
    liked.sort(key=lambda file: (any(word in names[file] for word in _LESS_LIKED), -file.stat().st_size, str(file)))
    return tuple(map(str, liked))


@lru_cache(64)
def _opened(file: str, size: int) -> ImageFont.FreeTypeFont | None:
    """The font, or None where there is no such font, or none of this size."""
    try:
        font = ImageFont.load_default(size) if file == _PILLOWS else ImageFont.truetype(file, size)
    except OSError:
        return None
    return font if isinstance(font, ImageFont.FreeTypeFont) else None


@lru_cache(8192)
def _has(file: str, letter: str) -> bool:
    """Whether the font draws the letter, and not what it draws for letters that it lacks."""
    font = _opened(file, _PROBE_SIZE)
    return font is not None and _drawn(font, letter) not in (None, _drawn(font, _NO_LETTER))


def _drawn(font: ImageFont.FreeTypeFont, letter: str) -> tuple[object, ...] | None:
    """Size and pixels of one letter; None where nothing is drawn."""
    mask = font.getmask(letter)
    pixels = bytes(mask)
    return (mask.size, pixels) if any(pixels) else None
