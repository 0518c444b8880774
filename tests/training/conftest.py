from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from mask_folders import write_mask_folder
from torch import nn

from cyclemlp.tasks.options import Length, Machine, Optimisation, Recording
from cyclemlp.tasks.segmentation import train as segmentation_module
from cyclemlp.tasks.segmentation.config import SegmentationConfig


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
    in_chans: int = 3,
    auxiliary: bool = False,
) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, num_classes, 1))


def use_small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmentation_module, "build_segmentation_model", small_network)


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_networks(monkeypatch)


def a_few_steps(
    data: Path, out: Path, steps: int | None = 6, max_time: str | None = None, **options: object
) -> SegmentationConfig:
    """A config of a run of a few steps on one process."""
    parts: dict[str, object] = {
        "length": Length(steps=steps, max_time=max_time),
        "optimisation": Optimisation(batch_size=2, lr=0.01),
        "recording": Recording(evaluations=3, log_every=1),
        "machine": Machine(device="cpu", workers=0),
        "out": out,
    }
    return SegmentationConfig(data=data, **{**parts, **options})  # type: ignore[arg-type]


@pytest.fixture
def configured(mask_folder: Path, tmp_path: Path) -> Callable[..., SegmentationConfig]:
    return partial(a_few_steps, mask_folder, tmp_path / "run")
