import csv
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from training_runs import train_segmentation

from cyclemlp import api
from cyclemlp.errors import CheckpointError, ConfigError, DataError
from cyclemlp.inference.evaluate import Evaluator
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.base import Counts
from cyclemlp.tasks.card import read_card
from cyclemlp.tasks.options import Length, Machine, Optimisation, Recording
from cyclemlp.tasks.parameter_groups import decay_groups
from cyclemlp.tasks.segmentation.config import Loss, SegmentationConfig
from cyclemlp.tasks.segmentation.metrics import ConfusionMatrix
from cyclemlp.tasks.segmentation.task import SegmentationTask
from cyclemlp.training import evaluations, loop
from cyclemlp.training import run as run_module
from cyclemlp.training import state as state_module
from cyclemlp.training.losses import LossError
from cyclemlp.training.schedule import Clock
from cyclemlp.training.state import MovingAverage, Objective, TrainingState

Configured = Callable[..., SegmentationConfig]
pytestmark = pytest.mark.usefixtures("small_networks")


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_folder_has_all_its_parts(configured: Configured) -> None:
    run_dir = train_segmentation(configured(steps=6))
    for name in ("config.yaml", "metrics.csv", "model.safetensors", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        assert (run_dir / name).is_file(), name
    assert list((run_dir / "tensorboard").iterdir())
    card = read_card(run_dir)
    assert card.classes == ("red", "green", "blue")
    assert 0 < card.metrics["mIoU"] <= 1
    found = rows(run_dir)
    assert [int(row["step"]) for row in found if row["loss"]] == [1, 2, 3, 4, 5, 6]
    assert [int(row["step"]) for row in found if row["mIoU"]] == [2, 4, 6]
    assert float(found[-1]["mIoU"]) == pytest.approx(card.metrics["mIoU"], rel=1e-5)
    options = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    assert options["steps"] == 6
    assert Path(options["data"]).is_absolute()
    assert "resume" not in options


def test_it_learns(configured: Configured) -> None:
    run_dir = train_segmentation(configured(steps=60, optimisation=Optimisation(batch_size=4, lr=0.03)))
    assert read_card(run_dir).metrics["mIoU"] > 0.9


def test_the_final_scores_are_those_of_the_saved_model(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is there before it is evaluated, and its scores are in the card, the table and the returned run."""
    usual = Evaluator.count_all
    seen: list[int] = []

    def count_all(self: Evaluator, predictor: Predictor, images: Sequence[int]) -> Counts:
        assert (config.run_dir / "model.safetensors").is_file()
        seen.extend(images)
        return usual(self, predictor, images)

    config = configured(steps=1)
    monkeypatch.setattr(Evaluator, "count_all", count_all)
    run = api.train_segmentation(config)
    assert sorted(seen) == [0, 1]  # every validation image once
    assert run.metrics == read_card(run.folder).metrics
    assert float(rows(run.folder)[-1]["mIoU"]) == pytest.approx(run.metrics["mIoU"], rel=1e-5)
    assert [each["mIoU"] for each in rows(run.folder) if each["mIoU"]] == [rows(run.folder)[-1]["mIoU"]]


def test_the_last_network_is_the_best_where_it_scores_as_well_on_the_same_images(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluations during training see one of two images; the harder second one must not count against the last."""
    task = SegmentationTask()

    def count(self: SegmentationTask, counts: ConfusionMatrix, *where: object) -> None:
        image = where[2]
        counts.update(torch.tensor([image]), torch.tensor([0]))  # the first image is right, the second wrong

    monkeypatch.setattr(SegmentationTask, "count", count)
    config = configured(steps=4, recording=Recording(evaluations=2, evaluation_images=1, log_every=1))
    run = api.train_segmentation(config)
    assert run.metrics["pixel_accuracy"] == 0.5
    assert [each[task.scores.main] for each in rows(run.folder) if each["mIoU"]] == ["1", "0.25"]
    best = torch.load(run.folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["step"] == 4


def test_resuming_a_finished_run_changes_nothing(configured: Configured) -> None:
    config = configured(steps=3)
    run_dir = train_segmentation(config)
    before, weights = rows(run_dir), (run_dir / "model.safetensors").read_bytes()
    train_segmentation(replace(config, resume=True))
    assert rows(run_dir) == before
    assert (run_dir / "model.safetensors").read_bytes() == weights


def test_a_finished_run_can_be_made_longer(configured: Configured) -> None:
    config = configured(steps=2)
    run_dir = train_segmentation(config)
    train_segmentation(replace(config, resume=True, length=Length(steps=4)))
    assert [int(row["step"]) for row in rows(run_dir) if row["loss"]] == [1, 2, 3, 4]


class TickingClock(Clock):
    """A twentieth of a second passes at every look."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def elapsed(self) -> float:
        self.looks += 1
        return 0.05 * self.looks


def test_time_ends_a_run_with_the_learning_rate_at_its_end(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "Clock", TickingClock)
    run_dir = train_segmentation(configured(steps=None, max_time="3s"))
    found = [row for row in rows(run_dir) if row["loss"]]
    assert 10 < len(found) < 60
    assert max(float(row["lr"]) for row in found) > 0.009
    assert float(found[-1]["lr"]) < 0.0015
    assert 1.5 <= float(found[-1]["seconds"]) < 3.0  # the rest, at most half, is for the evaluation at the end


def test_an_evaluation_longer_than_its_share_of_the_time_is_given_up(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(state_module, "Clock", TickingClock)
    monkeypatch.setattr(evaluations, "MAX_EVALUATION_SHARE", 0.0)  # the first image is already too much
    run_dir = train_segmentation(configured(steps=None, max_time="3s"))
    found = rows(run_dir)
    assert [row["step"] for row in found if row["mIoU"]] == [found[-1]["step"]]
    warnings = [record.getMessage() for record in caplog.records if "evaluation-images" in record.getMessage()]
    assert warnings == [
        "an evaluation takes more than 0 % of --max-time, so there is none before the end: give fewer"
        " --evaluation-images (now 2) to have some"
    ]


def test_the_average_follows_the_weights_and_short_runs_forget_faster(configured: Configured) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    average = MovingAverage(model, configured().optimisation.ema)
    live, averaged = dict(model.state_dict()), average.module.state_dict()
    for value in (1.0, 2.0):
        for tensor in live.values():
            tensor.fill_(value)
        average.update_parameters(model)
    # The first update copies; the second has decay (1 + 1) / (10 + 1).
    expected = 1.0 + (1 - 2 / 11)
    assert averaged["0.weight"].item() == pytest.approx(expected)
    assert averaged["1.running_mean"].item() == pytest.approx(expected)
    assert averaged["1.num_batches_tracked"].item() == 2
    assert not any(p.requires_grad for p in average.parameters())


def test_the_average_is_the_formula_s_to_the_bit() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    average = MovingAverage(model, 0.3)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    for step in range(6):
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter))
        model(torch.randn(2, 3, 5, 5))
        weight = 1.0 - min(0.3, (1.0 + step) / (10.0 + step)) if step else 1.0
        for name, tensor in expected.items():
            tensor.lerp_(model.state_dict()[name], weight)
        average.update_parameters(model)
    assert all(torch.equal(average.module.state_dict()[name], tensor) for name, tensor in expected.items())


def test_norms_and_biases_are_not_decayed(configured: Configured) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    groups = torch.optim.AdamW(decay_groups(model, weight_decay=configured().optimisation.weight_decay)).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(model[0].weight)}
    assert sum(len(group["params"]) for group in groups) == 4


def test_without_an_average_the_weights_themselves_are_kept(configured: Configured) -> None:
    config = configured(steps=2, optimisation=Optimisation(batch_size=2, lr=0.01, ema=0.0))
    run_dir = train_segmentation(config)
    state = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["averaged"] is None
    saved = load_file(run_dir / "model.safetensors")
    assert state["model"].keys() == saved.keys()
    assert all(torch.equal(state["model"][key], saved[key]) for key in saved)


def test_class_weights_come_from_the_masks(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    usual = Objective.forward

    def forward(self: Objective, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        seen.append(self.loss.class_weights)
        return usual(self, images, targets)

    monkeypatch.setattr(Objective, "forward", forward)
    train_segmentation(configured(steps=1, loss=Loss(class_weights="inverse")))
    assert seen[0] is not None
    assert seen[0].shape == (3,)
    assert seen[0].mean().item() == pytest.approx(1.0)


def make_loss_infinite_in(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, steps = Objective.forward, count(1)

    def forward(self: Objective, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        terms = usual(self, images, targets)
        return {**terms, "loss": terms["loss"] * float("inf")} if next(steps) == step else terms

    monkeypatch.setattr(Objective, "forward", forward)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_loss_infinite_in(4, monkeypatch)
    config = configured(steps=6)
    config = replace(config, recording=replace(config.recording, checkpoint_every=1))
    with pytest.raises(LossError) as stopped:
        train_segmentation(config)
    last = config.run_dir / "checkpoints" / "last.ckpt"
    assert str(stopped.value) == (
        "training stopped: the loss of step 4 is not finite; try a lower --lr (now 0.01) or a longer --warmup"
        f" (now 0.05). The last good checkpoint is {last}"
    )
    assert torch.load(last, weights_only=True)["step"] == 3
    assert not (config.run_dir / "model.safetensors").exists()


def test_weights_that_are_not_finite_are_never_saved(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = loop.training_step

    def training_step(state: TrainingState, batches: Iterator[Any]) -> dict[str, Tensor]:
        terms = usual(state, batches)
        if state.step == 3:
            next(state.model.parameters()).data.fill_(float("nan"))
        return terms

    monkeypatch.setattr(loop, "training_step", training_step)
    config = configured(steps=6)
    config = replace(config, recording=replace(config.recording, checkpoint_every=1, evaluations=1))
    with pytest.raises(LossError, match="the weights after step 3 are not finite"):
        train_segmentation(config)
    assert torch.load(config.run_dir / "checkpoints" / "last.ckpt", weights_only=True)["step"] == 2


def test_nothing_is_left_of_a_run_that_failed_before_its_first_checkpoint(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_loss_infinite_in(1, monkeypatch)
    config = configured(steps=6)
    with pytest.raises(LossError, match="There was no checkpoint yet"):
        train_segmentation(config)
    assert not config.run_dir.exists()


def test_a_damaged_image_is_named(configured: Configured, mask_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(mask_folder, data)
    mask = data / "masks" / "train" / "0.png"
    Image.new("L", (40, 40), 9).save(mask)
    config = replace(configured(steps=6), data=data, machine=Machine(device="cpu", workers=1))
    with pytest.raises(DataError) as refused:
        train_segmentation(config)
    assert str(mask) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("error", [ValueError("no\nformula"), DataError("a.png is gone")])
def test_a_report_that_fails_does_not_fail_the_run(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(run_module, "write_report", failing)
    run_dir = train_segmentation(configured(2))
    assert read_card(run_dir).metrics["mIoU"] is not None
    (line,) = (each.getMessage() for each in caplog.records if "report.html" in each.getMessage())
    assert line.startswith(f"report.html is missing ({' '.join(str(error).split())}")


def test_an_existing_folder_is_not_touched(configured: Configured) -> None:
    config = configured()
    config.run_dir.mkdir()
    (config.run_dir / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(ConfigError, match="exists and is not empty: choose another"):
        train_segmentation(config)
    assert [path.name for path in config.run_dir.iterdir()] == ["thesis.txt"]


def test_resume_refusals(configured: Configured) -> None:
    config = configured(steps=1)
    with pytest.raises(ConfigError, match="is no run folder"):
        train_segmentation(replace(config, resume=True))
    train_segmentation(config)
    other = replace(config, resume=True, optimisation=Optimisation(batch_size=2, lr=0.5))
    with pytest.raises(ConfigError, match=r"--lr 0.5 cannot be changed within a run \(.* has 0.01\)"):
        train_segmentation(other)
    last = config.run_dir / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="is damaged: its SHA-256 is not the one"):
        train_segmentation(replace(config, resume=True))
    with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
        train_segmentation(replace(config, resume=True, no_verify=True))


def test_a_checkpoint_in_the_old_format_is_refused_in_one_line(configured: Configured) -> None:
    config = configured(steps=1)
    train_segmentation(config)
    last = config.run_dir / "checkpoints" / "last.ckpt"
    torch.save({"global_step": 1, "state_dict": {}, "pytorch-lightning_version": "2.6.6"}, last)
    last.with_name("sha256.txt").unlink()  # unknown at that time
    with pytest.raises(CheckpointError) as refused:
        train_segmentation(replace(config, resume=True))
    refusal = f"{last} was written by another version of cyclemlp and cannot be resumed"
    assert str(refused.value) == f"{refusal}: start from its weights with --init {config.run_dir} and another --out"
    (config.run_dir / "model.safetensors").unlink()  # as where the run was not finished
    with pytest.raises(CheckpointError, match=f"{refusal}: begin it again"):
        train_segmentation(replace(config, resume=True))


def test_the_number_of_accumulated_batches_cannot_change_within_a_run(configured: Configured) -> None:
    config = configured(steps=1)
    train_segmentation(config)
    changed = Optimisation(batch_size=2, lr=0.01, accumulate=2)
    with pytest.raises(ConfigError, match="--accumulate 2 cannot be changed within a run"):
        train_segmentation(replace(config, resume=True, optimisation=changed))


@pytest.mark.parametrize("notebook", [True, False])
def test_a_notebook_shows_a_progress_bar(
    notebook: bool, configured: Configured, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    train_segmentation(configured(steps=2))
    assert ("step 2/2 100%" in capsys.readouterr().err) == notebook


def test_no_gpu_here(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="--device cuda: torch finds no CUDA GPU here"):
        train_segmentation(configured(machine=Machine(device="cuda")))


def test_lightning_keeps_quiet(
    configured: Configured, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        train_segmentation(configured(steps=1))
    assert [record.message for record in caplog.records if "lightning" in record.name] == []
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "lightning" not in captured.err.lower()


def test_the_weights_without_their_average_are_scored_where_asked(configured: Configured) -> None:
    recording = Recording(evaluations=1, log_every=1, score_raw_weights=True)
    options = Optimisation(batch_size=2, lr=0.01, ema=0.9)
    run_dir = train_segmentation(configured(steps=4, recording=recording, optimisation=options))
    metrics = read_card(run_dir).metrics
    raw = metrics["raw_weights"]
    assert set(raw) == {"mIoU", *SegmentationTask.scores.further}
    state = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)
    weights = load_file(run_dir / "model.safetensors")
    assert any(not torch.equal(weights[name], value) for name, value in state["model"].items())
    save_file(state["model"], run_dir / "model.safetensors")
    assert api.evaluate(run_dir, device="cpu", no_verify=True)["metrics"]["mIoU"] == pytest.approx(
        raw["mIoU"], abs=1e-6
    )
    report = (run_dir / "report.html").read_text(encoding="utf-8")
    assert f"without it mIoU is {100 * raw['mIoU']:.2f} %." in report


def test_without_an_average_there_is_one_score(configured: Configured) -> None:
    recording = Recording(evaluations=1, log_every=1, score_raw_weights=True)
    options = Optimisation(batch_size=2, lr=0.01, ema=0.0)
    run_dir = train_segmentation(configured(steps=2, recording=recording, optimisation=options))
    assert "raw_weights" not in read_card(run_dir).metrics
