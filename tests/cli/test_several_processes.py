"""A run of two processes: counted together, written by the first alone, and ended in good order by both."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

OPTIONS = "--device cpu --devices 2 --workers 0 --steps 2 --batch-size 2 --evaluations 2 --image-size 32 --json"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    numbers = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3)):  # an odd number: one process has an image more to count
        for name in ("dark", "light"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                low = 128 * (name == "light")
                Image.fromarray(numbers.integers(low, low + 128, (32, 32, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "data"


def test_both_end_and_one_reports(data: Path, tmp_path: Path) -> None:
    """Both find the same free folder, although the first one has begun it when the second one looks."""
    run = tmp_path / "runs" / "classification-2"
    (tmp_path / "runs" / "classification").mkdir(parents=True)
    (tmp_path / "runs" / "classification" / "notes.txt").touch()
    command = [sys.executable, "-m", "cyclemlp", "train", "classification", "--data", str(data)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *OPTIONS.split()],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    top1 = json.loads(done.stdout)["metrics"]["top1"]  # one object: the other process prints nothing
    assert top1 == json.loads((run / "model.json").read_text())["metrics"]["top1"]
    assert (run / "report.html").is_file()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["classification", "classification-2"]
    with (run / "metrics.csv").open(newline="") as file:
        scored = [line["top1"] for line in csv.DictReader(file) if line["top1"]]
    assert len(scored) == 2
    assert all(float(score) * 6 == pytest.approx(round(float(score) * 6), abs=1e-4) for score in scored)  # of 6 images
