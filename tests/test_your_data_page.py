"""What docs/your-data.md says: its commands exist, and those for a stranger's folder run."""

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command_line import command
from PIL import Image

from cyclemlp.cli import app

PAGE = (Path(__file__).parents[1] / "docs" / "your-data.md").read_text(encoding="utf-8")
LINES = re.findall(r"^ {4}(cyclemlp .*)$", PAGE, re.MULTILINE)
QUICK = ["--steps", "1", "--batch-size", "2", "--crop-size", "32", "--workers", "0", "--evaluations", "1"]


@pytest.mark.parametrize("line", LINES)
def test_commands_parse(line: str) -> None:
    app.parse_args(line.split()[1:], exit_on_error=False, print_error=False)


@pytest.mark.usefixtures("one_thread")
def test_the_commands_for_each_folder_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for folder in ("nuclei/images", "nuclei/masks", "scans"):
        Path(folder).mkdir(parents=True)
    for number in range(4):
        values = random.integers(0, 4096, (32, 32), np.uint16)
        tifffile.imwrite(f"nuclei/images/{number}.tif", values)
        Image.fromarray(np.where(values > 2000, 255, 0).astype(np.uint8)).save(f"nuclei/masks/{number}_mask.png")
    tifffile.imwrite("scans/a.tif", values)
    for line in (line for line in LINES if not {"fields", "streets", "scenes"} & set(line.split())):
        words = line.split()[1:]
        assert command(*words, *(QUICK if words[0] == "train" else [])) == 0
    shown = capsys.readouterr().out
    assert "hold 0 and 255 alone, which are the classes background and object" in shown
    assert Path("predicted/a_mask.png").is_file()
