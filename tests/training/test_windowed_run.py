"""A run on images that are read in windows: trained, scored as the same images in memory, and shown in the report."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cyclemlp import api
from cyclemlp.cli import main
from cyclemlp.data import windows

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
pytestmark = pytest.mark.usefixtures("one_thread")


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2]}
    place = rasterio.Affine(10, 0, 5e5, 0, -10, 5.4e6)
    with rasterio.open(path, "w", dtype="uint8", crs="EPSG:32633", transform=place, **profile) as target:
        target.write(values)


def test_a_run_on_large_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(0)
    page = (Path(__file__).parents[2] / "docs" / "scenes.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^ {4}cyclemlp (train segmentation --data DIR)$", page, re.MULTILINE)
    for part, name in re.findall(r"^ {4}images/(\w+)/(\w+)\.tif ", page, re.MULTILINE):
        mask = np.zeros((1, 150, 170), np.uint8)
        mask[:, 40:110, 30:120] = 1
        image = draw.integers(0, 100, (3, 150, 170)).astype(np.uint8) + mask * 100
        write(tmp_path / "data" / "images" / part / f"{name}.tif", image)
        write(tmp_path / "data" / "masks" / part / f"{name}.tif", mask)
    monkeypatch.setattr(windows, "WINDOWED_PIXELS", 10_000)
    run, data = tmp_path / "run", str(tmp_path / "data")
    line = f"{line.replace('DIR', data)} --out {run} --model cyclemlp_nano --head-width 8 --crop-size 32"
    line += " --batch-size 2 --steps 2 --window 64 --workers 0 --evaluations 2 --class-weights inverse"
    with pytest.raises(SystemExit) as left:
        main(line.split())
    assert left.value.code in (0, None)
    assert "rows 0 to 150" in (run / "report.html").read_text()
    in_windows, mirrored = (api.evaluate(run, data=data, flip=flip)["metrics"] for flip in (False, True))
    monkeypatch.setattr(windows, "WINDOWED_PIXELS", 10**9)
    assert api.evaluate(run, data=data, flip=True)["metrics"] == mirrored
    assert api.evaluate(run, data=data)["metrics"] == in_windows
    assert json.loads((run / "model.json").read_text())["metrics"] == in_windows
