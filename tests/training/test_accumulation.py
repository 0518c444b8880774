"""The batches of a step, whether one after the other or in several processes, act as one larger batch."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training.two_processes import IMAGES, train_numbers

from cyclemlp.training.checkpoints import read_checkpoint

TOLERANCE = 1e-12  # double precision; sums are taken in another order


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return train_numbers(tmp_path_factory.mktemp("large") / "run", batch_size=8)


def recorded(run_dir: Path, column: str) -> list[float]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file)]


def assert_alike(weights: dict[str, Tensor], large: dict[str, Tensor]) -> None:
    for name, expected in large.items():
        torch.testing.assert_close(weights[name], expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_accumulated_batches_are_the_larger_batch(batch_size: int, large: dict[str, Tensor], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    weights = train_numbers(run_dir, batch_size=batch_size, accumulate=8 // batch_size)
    assert_alike(weights, large)
    assert recorded(run_dir, "epoch") == pytest.approx([8 * step / IMAGES for step in range(1, 6)], rel=1e-5)
    assert max(recorded(run_dir, "lr")) == pytest.approx(0.05)  # meant for 8 images, which a step takes
    saved = read_checkpoint(run_dir)
    assert saved is not None
    assert saved["loader"]["delivered"] == 5 * 8 // batch_size


def test_processes_started_by_torchrun_are_the_larger_batch(large: dict[str, Tensor], tmp_path: Path) -> None:
    program, run_dir = Path(__file__).with_name("two_processes.py"), tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(program), str(run_dir)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        assert_alike(torch.load(f"{run_dir}-{rank}.pt", weights_only=True), large)
    assert recorded(run_dir, "epoch") == pytest.approx([8 * step / IMAGES for step in range(1, 6)], rel=1e-5)
