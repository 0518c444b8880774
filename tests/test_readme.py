"""What the README says is true: its code runs, its commands exist, its tables are those of results/."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemlp.cli import app
from cyclemlp.models.cyclemlp import SIZES, CycleMLPSizes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


FUNCTIONS, BACKBONE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_backbone_in_eight_lines_runs_offline(tmp_path: Path) -> None:
    assert len([line for line in BACKBONE.splitlines() if line.strip()]) <= 8
    blocked = "import socket\ndef refuse(*a, **k): raise OSError('no network here')\nsocket.socket.connect = refuse\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocked + BACKBONE],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "(1, 64, 62, 47)" in done.stdout


def test_the_python_functions_run_on_a_small_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first block as it stands, but for two steps on small crops, of a network that is exported fast."""
    monkeypatch.setitem(SIZES, "cyclemlp_nano", CycleMLPSizes((8, 8, 16, 16), (1, 1, 1, 1), (1, 1, 1, 1)))
    monkeypatch.chdir(tmp_path)
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        for kind, suffix, value in (("images", "jpg", 200), ("masks", "png", 1)):
            values = np.zeros((48, 64), dtype=np.uint8)
            values[:, 20:] = value
            folder = Path("DIR", kind, split)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / f"{name}.{suffix}")
    Path("photos").mkdir()
    for path in ("photo.jpg", "photos/photo.jpg"):
        Image.new("RGB", (50, 40)).save(path)
    shortened = FUNCTIONS.replace('max_time="20m"', 'steps=2, batch_size=2, crop_size=32, device="cpu"')
    assert shortened != FUNCTIONS
    exec(shortened, {})
    assert Path("overlay.png").is_file()
    assert Path("predicted", "photo_mask.png").is_file()
    assert Path("model.onnx").is_file()


@pytest.mark.parametrize("line", sorted(set(re.findall(r"^ {4}(cyclemlp .*?)(?:\s+#.*)?$", README, re.MULTILINE))))
def test_commands_parse(line: str) -> None:
    app.parse_args(line.split()[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!http)[^)]+)\)", README))))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_tables_are_those_of_the_results() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "render_results.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
