from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from cyclemlp.tasks.options import Length, Machine, Optimisation, Recording
from cyclemlp.tasks.segmentation import train as segmentation_module
from cyclemlp.tasks.segmentation.config import SegmentationConfig

COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], dtype=np.uint8)


def write_mask_folder(root: Path, train: int = 6, val: int = 2, edge: int = 40) -> Path:
    """Coloured checkers whose colour is the class, with noise."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:edge, :edge]
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            mask = ((rows // (5 + i) + columns // 9) % 3).astype(np.uint8)
            image = (0.7 * COLOURS[mask] + random.integers(0, 70, (edge, edge, 3))).astype(np.uint8)
            for kind, pixels in (("images", image), ("masks", mask)):
                folder = root / kind / split
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    (root / "classes.txt").write_text("red\ngreen\nblue\n", encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def mask_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mask_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True, scope="module")
def one_thread(one_thread: None) -> None:
    """Every test of this folder runs with one thread."""


def small_network(
    _backbone: str,
    _head: str,
    num_classes: int,
    *,
    head_width: int | None = None,
    drop_path_rate: float = 0.0,
    auxiliary: bool = False,
) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, num_classes, 1))


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmentation_module, "build_segmentation_model", small_network)


@pytest.fixture
def configured(mask_folder: Path, tmp_path: Path) -> Callable[..., SegmentationConfig]:
    """A config of a run of a few steps on one process."""

    def configure(steps: int | None = 6, max_time: str | None = None, **options: object) -> SegmentationConfig:
        parts: dict[str, object] = {
            "length": Length(steps=steps, max_time=max_time),
            "optimisation": Optimisation(batch_size=2, lr=0.01),
            "recording": Recording(evaluations=3, log_every=1),
            "machine": Machine(device="cpu", workers=0),
            "out": tmp_path / "run",
        }
        return SegmentationConfig(data=mask_folder, **{**parts, **options})  # type: ignore[arg-type]

    return configure
