"""Runs of `cyclemlp_nano` as it was, with wider channel MLPs: they are read, continued, and taken as weights."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from command_line import command, refused

from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import load_model, read_card
from cyclemlp.tasks.earlier_models import WIDE_NANO


@pytest.fixture(scope="module")
def run(mask_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As such a run is on disk: the old sizes under the name of today, in a record of the old format."""
    folder = tmp_path_factory.mktemp("runs") / "old"
    options = ["--steps", 2, "--batch-size", 2, "--crop-size", 32, "--workers", 0, "--evaluations", 1]
    assert command("train", "segmentation", "--data", mask_folder, "--model", WIDE_NANO, "--out", folder, *options) == 0
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"model": "cyclemlp_nano"}))
    for name, changes in (("model.json", {"model": "cyclemlp_nano"}), ("run.json", {"format": 1})):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | changes))
    return folder


def test_it_predicts_with_its_own_weights(run: Path, mask_folder: Path) -> None:
    assert read_card(run).model == "cyclemlp_nano"
    model, card = load_model(run)
    assert card.model == WIDE_NANO
    assert model.state_dict()["backbone.trunk.model.stages.0.blocks.0.channel_mlp.fc1.weight"].shape == (128, 32)
    image = next((mask_folder / "images/val").iterdir())
    result = Predictor.load(run).predict(image)
    assert result.mask.max() < len(card.classes)  # type: ignore[union-attr]


def test_a_network_of_today_is_what_it_says() -> None:
    import timm

    import cyclemlp  # noqa: F401

    hidden = {
        name: timm.create_model(name).state_dict()["stages.0.blocks.0.channel_mlp.fc1.weight"].shape
        for name in ("cyclemlp_nano", WIDE_NANO)
    }
    assert hidden == {"cyclemlp_nano": torch.Size((64, 32)), WIDE_NANO: torch.Size((128, 32))}


def test_it_is_taken_as_initial_weights_of_its_own_network_alone(
    run: Path, mask_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["train", "segmentation", "--data", mask_folder, "--init", run, "--out", tmp_path / "new"]
    message = refused(capsys, *start, "--steps", 1)
    assert WIDE_NANO in message
    assert "cyclemlp_nano" in message.replace(WIDE_NANO, "")
    small = ["--steps", 1, "--batch-size", 2, "--crop-size", 32, "--workers", 0]
    assert command(*start, "--model", WIDE_NANO, *small) == 0


def test_it_goes_on(run: Path) -> None:
    assert command("train", "segmentation", "--resume", run, "--steps", 3) == 0
    assert load_model(run)[1].model == WIDE_NANO
    assert command("train", "segmentation", "--resume", run, "--steps", 4) == 0
    assert json.loads((run / "run.json").read_text())["sessions"][-1]["step"] == 4
