from collections.abc import Callable
from pathlib import Path

import pytest

from cyclemlp.errors import ConfigError
from cyclemlp.tasks.options import Length, Machine, Optimisation
from cyclemlp.tasks.recipes import read_run_config
from cyclemlp.tasks.registry import get_task
from cyclemlp.tasks.segmentation.config import SegmentationConfig
from cyclemlp.training import fit
from cyclemlp.training.fit import Cost, choose
from cyclemlp.training.run import run_training


def test_what_fits_is_left_as_it_is() -> None:
    assert choose(Cost(0.5, 8, 384), seconds=600.0, images=100) == Cost(0.5, 8, 384)


def test_first_the_batch_then_the_crop() -> None:
    """1000 steps in 600 s: 2 s a step become 0.5 at a quarter of the batch; 4 s need smaller crops as well."""
    assert choose(Cost(2.0, 8, 384), 600.0, 100) == Cost(0.5, 2, 384)
    chosen = choose(Cost(4.0, 8, 384), 600.0, 100)
    assert (chosen.batch, chosen.crop) == (2, 256)
    assert chosen.seconds == pytest.approx(4.0 / 4 * (256 / 384) ** 2)


def test_a_pass_needs_cheaper_images() -> None:
    """A smaller batch sees no more images, a smaller crop does: 600 images a minute at 384 pixels."""
    chosen = choose(Cost(0.8, 8, 384), 900.0, 12_000)
    assert (chosen.batch, chosen.crop) == (8, 320)
    assert 900.0 / chosen.seconds * chosen.batch >= 12_000


def test_there_is_a_least() -> None:
    chosen = choose(Cost(1000.0, 8, 384), 60.0, 100)
    assert (chosen.batch, chosen.crop) == (2, 128)
    assert choose(Cost(1000.0, 8, None), 60.0, 100).batch == 2


def test_needs_a_time() -> None:
    with pytest.raises(ConfigError, match="--fit chooses what fits into --max-time: give that too"):
        Length(fit=True)


@pytest.mark.usefixtures("small_networks")
def test_a_run_keeps_what_was_chosen(
    configured: Callable[..., SegmentationConfig],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(fit, "_seconds_of_a_step", lambda *_: 60.0)
    caplog.set_level("INFO")
    config = configured(
        length=Length(steps=2, max_time="5m", fit=True),
        optimisation=Optimisation(batch_size=8),
        machine=Machine(device="cpu", workers=0),
    )
    run_training(get_task("segmentation"), config)
    saved = read_run_config(tmp_path / "run")
    assert (saved["batch-size"], saved["crop-size"]) == (2, 128)
    assert "--batch-size 2 (from 8) and --crop-size 128 (from" in caplog.text


@pytest.mark.usefixtures("small_networks")
def test_a_step_is_measured(configured: Callable[..., SegmentationConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    """Small images in five minutes: nothing has to change."""
    config = configured(length=Length(steps=1, max_time="5m", fit=True))
    run = run_training(get_task("segmentation"), config)
    assert read_run_config(run.folder)["batch-size"] == 2
