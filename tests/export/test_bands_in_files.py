"""ONNX files of networks on 1, 4 and 12 bands have the network's values, and say which bands those are."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from predictions import classified, segmented

from cyclemlp.errors import DataError
from cyclemlp.export.run import export_run
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.heads.network import SizeRule
from cyclemlp.inference.predictor import Predictor
from cyclemlp.inference.runtimes.facts import Facts
from cyclemlp.models.cyclemlp import SIZES, CycleMLPSizes
from cyclemlp.tasks.card import ModelCard, build_model, save_model

pytestmark = pytest.mark.usefixtures("one_thread")
CARDS = {
    "classification": ModelCard("classification", "cyclemlp_nano", "linear", ("a", "b"), image_size=64, crop_pct=1.0),
    "segmentation": ModelCard("segmentation", "cyclemlp_nano", "semantic-fpn", ("a", "b"), head_width=8),
    "detection": ModelCard(
        "detection", "cyclemlp_nano", "retinanet", ("a", "b"), head_width=8, detection=DetectionHead(head_convs=1)
    ),
}


@pytest.fixture(autouse=True)
def one_block_a_stage() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "cyclemlp_nano", CycleMLPSizes((16, 16, 16, 16), (1, 1, 1, 1), (2, 2, 2, 2)))
        yield


def on_bands(task: str, count: int) -> ModelCard:
    return replace(
        CARDS[task],
        in_chans=count,
        mean=(0.4,) * count,
        std=(0.2,) * count,
        values="fixed",
        value_range=(0.0, 4095.0),
        bands=tuple(range(count, 0, -1)),
        file_bands=count,
        band_names=tuple(f"B{number:02}" for number in range(count, 0, -1)),
    )


@pytest.mark.parametrize(("task", "count"), [("classification", 1), ("segmentation", 4), ("classification", 12)])
def test_values_and_bands_of_an_onnx_file(task: str, count: int, tmp_path: Path) -> None:
    card = on_bands(task, count)
    torch.manual_seed(0)
    save_model(tmp_path / "run", build_model(card), card)
    report = export_run(tmp_path / "run", tmp_path / "model.onnx", "onnx")
    assert report["parity"]["max_rel"] <= report["parity"]["limit"]
    exported, trained = Predictor.load(tmp_path / "model.onnx"), Predictor.load(tmp_path / "run", "cpu")
    assert exported.card.pixel_rule == card.pixel_rule
    values = np.random.default_rng(0).integers(0, 4096, (64, 64, count)).astype(np.uint16)
    found, expected = (each.predict(values) for each in (exported, trained))
    if task == "classification":
        np.testing.assert_allclose(classified(found).probabilities, classified(expected).probabilities, atol=1e-5)
    else:
        assert (segmented(found).mask == segmented(expected).mask).mean() > 0.999
    refusal = f"has {count + 1} bands, but the model was trained on images of {count}, of"
    with pytest.raises(DataError, match=refusal):
        exported.predict(np.repeat(values[..., :1], count + 1, axis=2))


@pytest.mark.parametrize("task", CARDS)
def test_a_file_says_what_its_channels_are(task: str) -> None:
    entries = Facts(on_bands(task, 4), SizeRule(64), ("logits",)).to_entries()
    normalisation = json.loads(entries["cyclemlp.input"])["normalisation"]
    assert normalisation == (
        "(value / 255 - mean) / std, channels are the bands 4 3 2 1 (B04, B03, B02, B01) of 4;"
        " value is 0 to 255 by value_range"
    )
    plain = json.loads(Facts(CARDS[task], SizeRule(64), ("logits",)).to_entries()["cyclemlp.input"])
    assert plain["normalisation"].endswith("channels in the order red, green, blue")
