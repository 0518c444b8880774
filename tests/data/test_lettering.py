"""Text in any script: from DejaVu Sans, from fonts of the system, or in words that say what is missing."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from cyclemlp.data import lettering
from cyclemlp.data.lettering import Lettering, drawn_name, families_of

NO_FONT_HAS = "\u0378"  # is no letter yet
CUNEIFORM = "\U00012000"
DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def written(text: str, size: int = 20) -> npt.NDArray[np.uint8]:
    image = Image.new("L", (300, 40))
    Lettering(size).write(ImageDraw.Draw(image), (5, 20), text, 255)  # type: ignore[arg-type]  # grey
    return np.asarray(image)


@pytest.mark.parametrize("name", ["Gebäude", "дорога", "δρόμος", "đường", "מבנה", "مبنى", "ქალაქი", "a\u0308"])
def test_letters_of_many_alphabets(name: str) -> None:
    assert drawn_name(name, 3) == name
    font = ImageFont.truetype(str(DEJAVU), 20)
    expected = Image.new("L", (300, 40))
    ascent, descent = font.getmetrics()
    ImageDraw.Draw(expected).text((5, 20 + (ascent - descent) / 2), name, fill=255, font=font, anchor="ls")
    assert np.array_equal(written(name), np.asarray(expected))
    assert families_of([name]) == ["DejaVu Sans"]


def test_a_class_in_letters_that_no_font_has_is_shown_by_its_number(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lettering, "_told", set())  # of tests before this one
    with caplog.at_level(logging.WARNING):
        for name in (f"a {NO_FONT_HAS}", f"{NO_FONT_HAS * 2} b"):
            assert drawn_name(name, 3) == "class 3"
    (record,) = caplog.records  # once, however many classes there are
    assert "classes with such names are drawn as class N" in record.getMessage()
    assert "Install a font that has the letters" in record.getMessage()


def test_other_text_has_question_marks_instead_of_empty_boxes() -> None:
    assert np.array_equal(written(f"a{NO_FONT_HAS}b.png"), written("a?b.png"))


def test_text_is_fitted_by_leaving_out_its_middle() -> None:
    twelve = Lettering(12)
    shown = twelve.fitted("train/class/image_000123.png", 100)
    assert twelve.length(shown) <= 100
    assert shown.startswith("train")
    assert shown.endswith("3.png")
    assert "…" in shown
    assert twelve.fitted("short", 100) == "short"


def test_other_letters_come_from_a_font_of_the_system(tmp_path: Path) -> None:
    """A font with one letter of cuneiform, which looks like an A, in the folder for the fonts of a user."""
    font = TTFont(DEJAVU)
    for table in font["cmap"].tables:
        table.cmap = {ord(CUNEIFORM): "A"} if table.format == 12 else {}
    font["name"].setName("Clay", 1, 3, 1, 0x409)
    (tmp_path / "fonts").mkdir()
    font.save(tmp_path / "fonts" / "clay.ttf")
    script = (
        "import json, sys\n"
        "from cyclemlp.data.lettering import Lettering, drawn_name, families_of\n"
        "name = sys.argv[1] + ' 0.5'\n"
        "lettering = Lettering(20)\n"
        "widths = lettering.length(name), lettering.length(' 0.5')\n"
        "print(json.dumps([drawn_name(name, 3) == name, *widths, families_of([name])]))\n"
    )
    command = [sys.executable, "-c", script, CUNEIFORM]
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "PYTHONUTF8": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown, width, without, families = json.loads(done.stdout)
    assert shown
    assert width > without + 5  # of whichever font: one of the machine's own may have the letter, too
    assert families[0] == "DejaVu Sans"
    assert len(families) == 2
