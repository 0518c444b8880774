"""Runs with UperNet: a loss of its own for the auxiliary head, which the saved network is without."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from training_runs import train_segmentation

from cyclemlp.data.augmentation import MaskAugmentation
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.card import load_model
from cyclemlp.tasks.options import Length, Optimisation
from cyclemlp.tasks.segmentation.config import SegmentationConfig

Configured = Callable[..., SegmentationConfig]


def losses(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["loss"]]


def test_the_auxiliary_loss_is_a_term_and_its_head_is_not_saved(configured: Configured) -> None:
    config = configured(steps=1, head="upernet", head_width=16, augmentation=MaskAugmentation(crop_size=32))
    run_dir = train_segmentation(config)
    (row,) = losses(run_dir)
    assert float(row["loss"]) == pytest.approx(float(row["cross_entropy"]) + 0.4 * float(row["auxiliary"]), rel=1e-4)
    model, card = load_model(run_dir)
    assert (card.head, card.head_width) == ("upernet", 16)
    assert not [key for key in model.state_dict() if key.startswith("auxiliary")]
    train_segmentation(replace(config, resume=True, length=Length(steps=2)))
    assert [int(row["step"]) for row in losses(run_dir)] == [1, 2]


def test_one_image_a_batch_is_too_few(configured: Configured) -> None:
    config = configured(head="upernet", optimisation=Optimisation(batch_size=1))
    with pytest.raises(ConfigError, match=r"--batch-size 1 is too small for --head upernet.*--batch-size 2 or more"):
        train_segmentation(config)
