"""A run of two processes: counted together, written by the first alone, and ended in good order by both."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

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


def trained(data: Path, folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    """`cyclemlp train` in two processes, started in `folder`."""
    command = [sys.executable, "-m", "cyclemlp", "train", "classification", "--data", data, *OPTIONS.split(), *options]
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=900,
        check=False,
        cwd=folder,
    )


def test_both_end_and_one_reports(data: Path, tmp_path: Path) -> None:
    """Both find the same free folder, although the first one has begun it when the second one looks."""
    run = tmp_path / "runs" / "classification-2"
    (tmp_path / "runs" / "classification").mkdir(parents=True)
    (tmp_path / "runs" / "classification" / "notes.txt").touch()
    done = trained(data, tmp_path)
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


def test_both_start_from_the_run_that_they_replace(data: Path, tmp_path: Path) -> None:
    """The second process starts when the old run has been moved aside already."""
    run = tmp_path / "run"
    assert trained(data, tmp_path, "--out", run).returncode == 0
    before = load_file(run / "model.safetensors")
    done = trained(data, tmp_path, "--out", run, "--overwrite", "--init", run, "--lr", 1e-9, "--seed", 1)
    assert done.returncode == 0, done.stderr
    assert not list(run.glob(".repl*"))
    after = load_file(run / "model.safetensors")
    assert all(torch.allclose(after[name], value, atol=1e-6) for name, value in before.items())
