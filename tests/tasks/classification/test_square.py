"""How a classifier makes long images square: the same in training, evaluation, prediction and exported files."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import command, refused
from PIL import Image
from predictions import classified

from cyclemlp import api
from cyclemlp.data.resizing import SquareRule, central_crop, fitted, share_in_crop, whole_square
from cyclemlp.errors import CheckpointError
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard, build_model, read_card, save_model
from cyclemlp.tasks.classification.config import LabelAugmentation
from cyclemlp.tasks.classification.train import LabelTrainTransform

pytestmark = pytest.mark.usefixtures("one_thread")

LONG = np.zeros((20, 200, 3), np.uint8)
LONG[:, :20] = (255, 0, 0)
LONG[:, 180:] = (0, 0, 255)
GREY = (0.5, 0.5, 0.5)


def test_each_rule_on_a_long_image() -> None:
    assert np.array_equal(fitted(LONG, 32, "crop", 0.875, GREY), central_crop(LONG, 32, 0.875))
    assert not central_crop(LONG, 32, 0.875).any()  # both coloured ends are lost
    squashed, padded = (fitted(LONG, 40, how, 0.875, GREY) for how in ("squash", "pad"))
    assert squashed.shape == padded.shape == (40, 40, 3)
    for row in (0, 20, 39):
        assert squashed[row, 1].tolist() == [255, 0, 0]
        assert squashed[row, 38].tolist() == [0, 0, 255]
    assert padded[20, 1].tolist() == [255, 0, 0]
    assert padded[20, 38].tolist() == [0, 0, 255]
    assert {tuple(pixel) for row in (*range(18), *range(22, 40)) for pixel in padded[row].tolist()} == {(128,) * 3}
    assert np.array_equal(whole_square(LONG.transpose(1, 0, 2), 40, "pad", GREY), padded.transpose(1, 0, 2))
    assert whole_square(np.zeros((1, 900, 3), np.uint8), 32, "pad", GREY).shape == (32, 32, 3)


def test_the_share_that_a_crop_keeps() -> None:
    assert share_in_crop(100, 100, 224, 0.875) == pytest.approx(0.875**2)
    assert share_in_crop(100, 1000, 224, 1.0) == share_in_crop(1000, 100, 224, 1.0) == pytest.approx(0.1)


@pytest.mark.parametrize(("rule", "both"), [("crop", False), ("squash", True), ("pad", True)])
def test_training_sees_what_prediction_sees(rule: SquareRule, both: bool) -> None:
    torch.manual_seed(0)
    options = LabelAugmentation(scale=(1.0, 1.0), colour_jitter=0.0, flip=0.0)
    sample, _ = LabelTrainTransform(40, options, rule)(LONG, 0)
    assert sample.shape == (3, 40, 40)
    middle = sample[:, 20]
    assert bool(middle[0, :3].mean() > 1 and middle[2, -3:].mean() > 1) is both


def write_folder(root: Path) -> Path:
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = generator.integers(0, 256, (40, 400 if i else 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("long") / "data")


def train(data: Path, out: Path, *options: str) -> int:
    fixed = ("--model", "resnet18", "--image-size", 32, "--steps", 1, "--batch-size", 2, "--workers", 0)
    return command("train", "classification", "--data", data, "--out", out, "--device", "cpu", *fixed, *options)


def test_a_run_keeps_its_rule_and_exported_files_follow_it(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    caplog.set_level(logging.WARNING)
    run = tmp_path / "run"
    assert train(data, run, "--resize", "pad") == 0
    card = read_card(run)
    assert (card.resize, card.crop_pct) == ("pad", 1.0)
    assert "square crop" not in caplog.text
    api.export(run, out=tmp_path / "model.onnx")
    image = data / "val/a/1.png"
    plain, exported = (Predictor.load(path, "cpu") for path in (run, tmp_path / "model.onnx"))
    assert exported.card.resize == "pad"
    wanted, found = classified(plain.predict(image)).probabilities, classified(exported.predict(image)).probabilities
    assert np.abs(wanted - found).max() < 1e-5
    cropped = classified(plain.described_as(replace(card, resize="crop")).predict(image)).probabilities
    assert np.abs(wanted - cropped).max() > 1e-5
    capsys.readouterr()
    assert command("eval", run, "--device", "cpu", "--json") == 0
    assert json.loads(capsys.readouterr().out)["resize"] == "pad"
    assert command("eval", run, "--device", "cpu") == 0
    assert "images of 32 pixels, --resize pad" in capsys.readouterr().out
    assert "--crop 0.9: the run was trained with --resize pad; leave it out" in refused(
        capsys, "eval", run, "--crop", 0.9
    )


def test_a_crop_that_loses_most_is_noted(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run, words = tmp_path / "run", "lose more than half to the square crop from the middle; train with --resize pad"
    assert train(data, run) == 0
    assert f"4 of 8 images (such as {data}/train/a/1.png) {words}" in caplog.text
    caplog.clear()
    assert command("eval", run, "--device", "cpu") == 0
    assert f"2 of 4 images (such as {data}/val/a/1.png) {words}" in caplog.text
    caplog.clear()
    capsys.readouterr()
    assert command("predict", run, data / "val/a", "--out", tmp_path / "out", "--json") == 0
    assert "1 of 2 images" in caplog.text
    entries: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["images"]
    assert [entry.get("seen") for entry in entries] == [None, pytest.approx(0.1 * (32 / 36) ** 2, abs=1e-4)]


def test_unknown_rules_are_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "train", "classification", "--data", data, "--out", tmp_path / "run", "--resize", "stretch")
    assert "crop" in line
    assert "squash" in line
    card = ModelCard("classification", "resnet18", "linear", ("a", "b"), image_size=32, crop_pct=1.0)
    save_model(tmp_path / "model", build_model(card), card)
    values = json.loads((tmp_path / "model/model.json").read_text())
    (tmp_path / "model/model.json").write_text(json.dumps({**values, "resize": "stretch"}))
    with pytest.raises(CheckpointError, match="resize 'stretch': allowed are crop, pad, squash"):
        read_card(tmp_path / "model")
    del values["resize"]  # as earlier versions wrote it
    (tmp_path / "model/model.json").write_text(json.dumps(values))
    assert read_card(tmp_path / "model").resize == "crop"
