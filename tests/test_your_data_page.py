"""What docs/your-data.md says: its commands exist, and those for a stranger's folder run."""

import json
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
QUICK = ["--steps", "10", "--batch-size", "4", "--crop-size", "32", "--workers", "0", "--evaluations", "1"]
QUICK += ["--lr", "3e-3", "--ema", "0", "--scale", "1", "1"]


@pytest.mark.parametrize("line", LINES)
def test_commands_parse(line: str) -> None:
    app.parse_args(line.split()[1:], exit_on_error=False, print_error=False)


@pytest.fixture
def nuclei(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stranger's folder: 12-bit values in 16-bit TIFFs, masks of 0 and 255 with an ending, no validation split."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for folder in ("nuclei/images", "nuclei/masks", "scans"):
        Path(folder).mkdir(parents=True)
    for number in range(8):
        inside = np.kron(random.integers(0, 2, (2, 2)), np.ones((16, 16), np.int64)).astype(bool)
        values = (np.where(inside, 3000, 400) + random.integers(0, 300, inside.shape)).astype(np.uint16)
        tifffile.imwrite(f"nuclei/images/{number}.tif", values)
        Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)).save(f"nuclei/masks/{number}_mask.png")
    tifffile.imwrite("scans/a.tif", values)
    np.save("expected.npy", inside)
    return Path("nuclei")


@pytest.mark.usefixtures("one_thread")
def test_two_commands_train_on_a_strangers_folder(nuclei: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in nuclei.rglob("*") if path.is_file()}
    for line in (line for line in LINES if not {"fields", "streets", "scenes"} & set(line.split())):
        words = line.split()[1:]
        assert command(*words, *(QUICK if words[0] == "train" else [])) == 0
    shown = capsys.readouterr().out
    assert "pairs: the same place and name in images and masks, names of masks ending in _mask, such as" in shown
    assert "classes: 0 in a mask is background, 255 is object" in shown
    assert "splits: --val-share 0.25 by a hash of the names and seed 0: train 6, val 2" in shown
    assert {path: path.read_bytes() for path in nuclei.rglob("*") if path.is_file()} == before
    card = json.loads(Path("run/model.json").read_text())
    assert (card["classes"], card["value_range"]) == (["background", "object"], [0, 4095])
    assert card["metrics"]["mIoU"] > 0.8
    predicted = np.asarray(Image.open("predicted/a_mask.png"))
    assert (predicted == np.load("expected.npy")).mean() > 0.8
    mask = next(Path("prepared/masks/val").iterdir())
    assert np.unique(np.asarray(Image.open(mask))).tolist() == [0, 1]
