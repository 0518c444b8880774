"""What docs/export.md shows: its code runs on a file of each task in each runtime, and predicts what cyclemlp does."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from predictions import classified, detected, segmented
from torch.export import ExportedProgram

from cyclemlp.errors import ConfigError
from cyclemlp.export import formats
from cyclemlp.export.formats import FORMATS
from cyclemlp.export.program import export_program, raw_network
from cyclemlp.export.run import check_request, write_checked
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.inference.predictor import Predictor
from cyclemlp.inference.runtimes.facts import Facts
from cyclemlp.inference.runtimes.openvino import core
from cyclemlp.models.cyclemlp import SIZES, CycleMLPSizes
from cyclemlp.tasks.card import ModelCard, build_model, save_model
from cyclemlp.tasks.options import PredictionOptions

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
OPEN = dict(zip(("onnx", "openvino", "pt2"), BLOCKS[:3], strict=True))
USE = dict(zip(("detection", "segmentation", "classification"), BLOCKS[3:], strict=True))
HEAD = DetectionHead(head_convs=1, head_norm="group", score_threshold=0.2, candidates=200, detections=60)
CARDS = {
    "detection": ModelCard(
        # Of a small network: to export CycleMLP for images of any size takes three times as long, in test_export.py.
        "detection",
        "test_resnet",
        "retinanet",
        ("cell", "speck"),
        head_width=16,
        detection=HEAD,
        input_scale=1.25,
    ),
    "segmentation": ModelCard("segmentation", "cyclemlp_nano", "semantic-fpn", ("sea", "land"), head_width=16),
    "classification": ModelCard("classification", "cyclemlp_nano", "linear", ("a", "b"), image_size=64, crop_pct=0.875),
}
SHAPES = ((64, 64), (35, 90), (97, 131), (20, 40), (150, 203))


@pytest.fixture(scope="module", autouse=True)
def one_block_a_stage() -> Iterator[None]:
    """Exporting takes seconds a block, and every block is exported alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "cyclemlp_nano", CycleMLPSizes((16, 32, 48, 64), (1, 1, 1, 1), (2, 2, 2, 2)))
        yield


def untrained(card: ModelCard) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model(card).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
            if name.endswith("cls_logits.bias"):  # before training nothing is above the threshold
                parameter.zero_()
    return model


@pytest.fixture(scope="module", params=CARDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A task, and a folder with a run of it and its file in each format."""
    card = CARDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    model = untrained(card)
    save_model(folder / "run", model, card)
    raw = raw_network(model, card)
    program = export_program(raw)
    to_onnx = formats._to_onnx
    done: list[torch.onnx.ONNXProgram] = []

    def once(program: ExportedProgram, facts: Facts, opset: int | None = None) -> torch.onnx.ONNXProgram:
        """Two formats go by way of ONNX, and translation takes seconds."""
        if not done:
            done.append(to_onnx(program, facts, 18))
        return done[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "_to_onnx", once)
        for name in ("pt2", "onnx", "openvino"):
            write_checked(program, raw, model, folder / f"model{FORMATS[name].suffix}", name)
    return request.param, folder


def opened_by_hand(runtime: str) -> dict[str, Any]:
    """The names that the page's code defines when it opens the file in the present folder."""
    names: dict[str, Any] = {}
    shared = core()
    with pytest.MonkeyPatch.context() as patch:
        # Two that end in the order they were made leave the process with a freed signal stack.
        patch.setattr("openvino.Core", lambda: shared)
        exec(OPEN[runtime], names)
    return names


@pytest.mark.parametrize("runtime", FORMATS)
def test_the_code_predicts_what_cyclemlp_does(
    exported: tuple[str, Path], runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, folder = exported
    monkeypatch.chdir(folder)
    run, file = Predictor.load("run", "cpu"), Predictor.load(f"model{FORMATS[runtime].suffix}", "cpu")
    numbers, opened = np.random.default_rng(0), opened_by_hand(runtime)
    for shape in SHAPES:
        Image.fromarray(numbers.integers(0, 256, (*shape, 3), dtype=np.uint8)).save("photo.png")
        found = dict(opened)
        exec(USE[task], found)
        for predictor in (run, file):
            described = predictor.described_as(predictor.task.card_for_prediction(predictor.card, PredictionOptions()))
            compare(found, described.predict("photo.png"))


def compare(found: dict[str, Any], result: Any) -> None:
    if "found" in found:
        objects = detected(result)
        assert len(found["found"]) == len(objects) > 0
        # Scores that differ by rounding alone may stand in another order.
        wanted = sorted(zip(objects.names, objects.scores, objects.boxes.tolist(), strict=True), key=by_box)
        for ours, theirs in zip(sorted(found["found"], key=by_box), wanted, strict=True):
            assert ours[0] == theirs[0]
            np.testing.assert_allclose(ours[1], theirs[1], atol=1e-5)
            np.testing.assert_allclose(ours[2], theirs[2], atol=0.1)
    elif "mask" in found:
        assert np.mean(found["mask"] == segmented(result).mask) >= 0.999
    else:
        np.testing.assert_allclose(found["probabilities"], classified(result).probabilities, atol=1e-5)


def by_box(entry: tuple[str, float, Any]) -> list[float]:
    return [round(float(value), 1) for value in entry[2]]


def test_the_onnx_file_is_for_old_runtimes_and_its_axes_have_names(exported: tuple[str, Path]) -> None:
    import onnx

    task, folder = exported
    model = onnx.load(folder / "model.onnx")
    assert (model.opset_import[0].version, model.ir_version) == (18, 8)
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    if task == "detection":
        objects = {"boxes": ["objects", 4], "scores": ["objects"], "labels": ["objects"]}
        assert axes == {"images": [1, 3, "height", "width"], **objects}
    elif task == "segmentation":
        images = ["batch", 3, "height", "width"]
        assert axes == {"images": images, "logits": ["batch", 2, "height", "width"]}
    else:
        assert axes == {"images": ["batch", 3, 64, 64], "logits": ["batch", 2]}


def test_boxes_that_a_file_has_dropped_cannot_be_asked_for(exported: tuple[str, Path]) -> None:
    task, folder = exported
    predictor = Predictor.load(folder / "model.onnx")
    if task != "detection":
        assert predictor.described_as(predictor.card).card == predictor.card
        return
    for options, message in (
        (replace(HEAD, score_threshold=0.1), "--score-threshold 0.1: this network drops boxes below 0.2 by itself"),
        (replace(HEAD, nms=0.7), "--nms 0.7: this network drops boxes that overlap by more than 0.5 by itself"),
    ):
        with pytest.raises(ConfigError, match=message):
            predictor.described_as(replace(predictor.card, detection=options))


def test_raw_files_keep_their_outputs_and_batches() -> None:
    card = CARDS["detection"]
    raw = raw_network(untrained(card), card, raw=True)
    assert raw.facts.outputs == ("logits", "offsets")
    assert raw.example(2, 64, 96).shape == (2, 3, 64, 96)


def test_the_keys_of_the_metadata_are_listed(exported: tuple[str, Path]) -> None:
    keys = set(by_hand_facts(exported[1])) - {"format", "head_width", "model_options"}
    listed = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE))))
    assert keys <= listed


def by_hand_facts(folder: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(OPEN["onnx"].replace('"model.onnx"', repr(str(folder / "model.onnx"))), names)
    facts: dict[str, Any] = names["facts"]
    return facts


@pytest.mark.parametrize(
    ("name", "opset", "message"),
    [
        ("m.onnx", 17, "--opset 17 is not allowed: from 18 to 23"),
        ("m.xml", 18, "--opset 18 is for --format onnx alone"),
    ],
)
def test_operator_sets_that_are_refused(name: str, opset: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        check_request(tmp_path / name, "onnx" if name.endswith("onnx") else "openvino", 1e-4, opset)
