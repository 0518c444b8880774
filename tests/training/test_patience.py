"""`--patience`: a run ends when its score no longer rises, with the network of the best evaluation."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import command, refused
from safetensors.torch import load_file
from training_runs import train_segmentation

from cyclemlp import api
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.options import Optimisation, Recording
from cyclemlp.tasks.segmentation.config import SegmentationConfig

Configured = Callable[..., SegmentationConfig]
pytestmark = pytest.mark.usefixtures("small_networks")

STANDSTILL = Optimisation(batch_size=2, lr=1e-7, ema=0)
"""Weights move by a few units in the last place and scores do not: the first evaluation stays the best."""


def patient(patience: int | None) -> Recording:
    return Recording(evaluations=10, log_every=1, patience=patience)


def rows(run_dir: Path, column: str) -> list[list[str]]:
    with (run_dir / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [[row["step"], row[column]] for row in csv.DictReader(file) if row[column]]


def test_a_score_that_stands_still_ends_the_run(configured: Configured, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    config = configured(steps=20, optimisation=STANDSTILL, recording=patient(2))
    run = api.train_segmentation(config)
    assert [step for step, _ in rows(run.folder, "mIoU")] == ["2", "4", "6"]
    why = f"mIoU has not risen in 2 evaluations (--patience 2); the best, {run.metrics['mIoU']:.4f}, was at step 2"
    assert run.early_end == why
    assert f"stopped at step 6: {why}" in caplog.messages
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert f"The run was stopped early: {why}. This is the network of that step." in page
    assert "still falling" not in run.doubts


def test_the_network_is_that_of_the_best_evaluation(configured: Configured) -> None:
    run_dir = train_segmentation(configured(steps=20, optimisation=STANDSTILL, recording=patient(2)))
    saved = load_file(run_dir / "model.safetensors")
    found = {name: torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last")}
    assert (found["best"]["step"], found["last"]["step"]) == (2, 6)
    assert all(torch.equal(saved[key], value) for key, value in found["best"]["model"].items())
    assert not all(torch.equal(saved[key], value) for key, value in found["last"]["model"].items())


def test_until_it_ends_the_run_is_the_same(configured: Configured, tmp_path: Path) -> None:
    """Learning rates and losses follow the schedule of the whole run."""
    config = configured(steps=20, optimisation=STANDSTILL, recording=patient(2))
    short = train_segmentation(config)
    whole = train_segmentation(replace(config, recording=patient(None), out=tmp_path / "whole"))
    for column in ("lr", "loss"):
        assert rows(short, column) == rows(whole, column)[:6]


def test_a_rising_score_goes_on(configured: Configured) -> None:
    config = configured(steps=20, optimisation=Optimisation(batch_size=2, lr=0.03), recording=patient(8))
    run = api.train_segmentation(config)
    assert (run.early_end, rows(run.folder, "loss")[-1][0]) == ("", "20")


def test_a_resumed_run_continues_the_count(configured: Configured) -> None:
    config = configured(steps=20, optimisation=STANDSTILL, recording=patient(2))
    run = api.train_segmentation(config)
    again = api.train_segmentation(replace(config, resume=True))
    assert (again.early_end, again.metrics) == (run.early_end, run.metrics)
    assert rows(run.folder, "loss")[-1][0] == "6"
    longer = api.train_segmentation(replace(config, resume=True, recording=patient(4)))
    assert longer.early_end.startswith("mIoU has not risen in 4 evaluations")
    assert rows(run.folder, "loss")[-1][0] == "10"


def test_a_patience_that_could_never_end_the_run_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Recording(evaluations=1, patience=1)
    assert str(caught.value) == (
        "--patience 1 would never stop a run with --evaluations 1, the last of which is at its end: give"
        " --evaluations 3 or more"
    )
    with pytest.raises(ConfigError, match="--patience 9 would never stop a run with --evaluations 10"):
        Recording(patience=9)
    with pytest.raises(ConfigError, match="--patience 0 is not allowed: more than 0"):
        Recording(patience=0)
    assert Recording(patience=8).patience == 8


@pytest.mark.parametrize("task", ["segmentation", "detection", "instance-segmentation", "classification"])
def test_every_task_has_it(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = refused(capsys, "train", task, "--data", tmp_path, "--evaluations", "3", "--patience", "2")
    assert words.startswith("cyclemlp: --patience 2 would never stop a run with --evaluations 3")


def test_the_command_says_why_it_ended(mask_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--steps",
        "10",
        "--evaluations",
        "5",
        "--lr",
        "1e-7",
        "--ema",
        "0",
        "--batch-size",
        "2",
        "--patience",
        "1",
    ]
    where = ["--data", mask_folder, "--out", tmp_path / "run", "--workers", "0", "--device", "cpu"]
    assert command("train", "segmentation", *where, *options, "--json") == 0
    assert "(--patience 1)" in json.loads(capsys.readouterr().out)["early_end"]
