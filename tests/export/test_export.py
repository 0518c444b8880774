"""Exported files give the checkpoint's values in every runtime, drawn and all, and without torch where they can."""

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from every_format import follows_every_size
from predictions import classified, detected
from torch.export import ExportedProgram

from cyclemlp.cli import main
from cyclemlp.errors import ConfigError
from cyclemlp.export.formats import FORMATS, Graph, write_onnx
from cyclemlp.export.program import RawNetwork, export_program, raw_network
from cyclemlp.export.run import check_request, export_run, parse_size, trained_size
from cyclemlp.export.verify import Difference, check
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.inference.predictor import Predictor
from cyclemlp.inference.runtimes.facts import Facts
from cyclemlp.models.cyclemlp import SIZES, CycleMLPSizes
from cyclemlp.models.forms.fused_mixer import BlendedMixer
from cyclemlp.tasks.card import ModelCard, build_model, save_model
from cyclemlp.tasks.detection.predict import DetectionResult

SEGMENTATION = ModelCard(
    "segmentation", "cyclemlp_nano", "semantic-fpn", ("sea", "land"), head_width=16, ground_resolution=(10.0, 9.5, 12.0)
)
DETECTION = ModelCard(
    "detection",
    "cyclemlp_nano",
    "retinanet",
    ("cell", "speck"),
    head_width=16,
    detection=DetectionHead(head_convs=1, head_norm="group"),
)
SIZES_TRIED = ((64, 64), (35, 90), (97, 131))


def save_run(folder: Path, card: ModelCard) -> Path:
    """A run folder with random weights whose outputs differ from place to place."""
    torch.manual_seed(0)
    model = build_model(card)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    if card.task == "detection":  # a network before training finds nothing above the threshold
        with torch.no_grad():
            model.head.classification_head.cls_logits.bias.zero_()  # type: ignore[union-attr, operator]
    save_model(folder, model, card)
    return folder


def random_images() -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    numbers = np.random.default_rng(0)
    return [numbers.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES_TRIED]


@pytest.fixture(scope="module", autouse=True)
def one_block_a_stage() -> Iterator[None]:
    """Exporting takes seconds a block, and every block is exported alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "cyclemlp_nano", CycleMLPSizes((16, 32, 48, 64), (1, 1, 1, 1), (2, 2, 2, 2)))
        yield


def forms(raw: RawNetwork) -> list[str]:
    return [mixer.graph_form for mixer in raw.module.modules() if isinstance(mixer, BlendedMixer)]


def test_the_graph_is_arranged_for_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cyclemlp.models.forms.fused_mixer.is_recorded", lambda: True)
    torch.manual_seed(0)
    for card in (SEGMENTATION, DETECTION):
        model = build_model(card).eval()
        large, small = (raw_network(model, card, size, raw=True) for size in ((512, 1024), (64, 96)))
        assert forms(large) == ["folded"] * 4
        assert forms(small) == ["folded", "folded", "blended", "branches"]
        images = torch.randn(2, 3, 64, 96)
        wanted, *found = (outputs(module(images)) for module in (model, large.module, small.module))
        for each in found:  # float32: the forms add in other orders
            torch.testing.assert_close(each, wanted, rtol=1e-4, atol=1e-5)


def outputs(given: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (given,) if isinstance(given, torch.Tensor) else given


def test_the_size_is_that_of_the_training_crops_unless_given(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", SEGMENTATION)
    assert trained_size(run, SEGMENTATION) is None
    (run / "config.yaml").write_text("crop-size: 384\n")
    assert trained_size(run, SEGMENTATION) == trained_size(run / "model.safetensors", SEGMENTATION) == (384, 384)
    (run / "config.yaml").write_text("crop-size: null\n")
    assert trained_size(run, replace(DETECTION, short_side=800, long_side=1333)) == (800, 1333)
    assert trained_size(run, replace(DETECTION, window=640, short_side=800)) == (640, 640)


@pytest.mark.parametrize("text", ["480", "480x640", " 480X640"])
def test_sizes_that_are_understood(text: str) -> None:
    assert parse_size(text) == (480, 640 if "640" in text else 480)


@pytest.mark.parametrize("text", ["", "x", "480x", "16x64", "480x640x3", "480*640", "64x99999", "-64"])
def test_sizes_that_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--for-size '.*' is no size: HEIGHTxWIDTH in network pixels, such as"):
        parse_size(text)


def test_a_network_for_one_size_takes_no_other() -> None:
    card = ModelCard("classification", "cyclemlp_nano", "linear", ("a", "b"), image_size=64, crop_pct=1.0)
    with pytest.raises(ConfigError, match="is exported for its own 64x64 pixels; leave it out"):
        raw_network(build_model(card), card, (96, 96))


def assert_same_objects(ours: DetectionResult, theirs: DetectionResult) -> None:
    """Each box has one of the same class and score within a tenth of a pixel; ties may stand in another order."""
    assert len(ours) == len(theirs) > 0
    edges = np.abs(ours.boxes[:, None] - theirs.boxes[None]).max(2)
    scores = np.abs(ours.scores[:, None] - theirs.scores[None])
    same = (edges <= 0.1) & (scores <= 1e-5) & (ours.labels[:, None] == theirs.labels[None])
    assert same.any(1).all()
    assert same.any(0).all()


def test_boxes_are_the_checkpoints(tmp_path: Path) -> None:
    """Every box, within a tenth of a pixel, with its class and score; files that decode: test_exported_files.py."""
    run = save_run(tmp_path / "run", DETECTION)
    wanted = Predictor.load(run)
    report = export_run(run, tmp_path / "d.xml", "openvino", for_size="96x128", raw=True)  # by way of ONNX
    assert report["for_size"] == [96, 128]
    found = Predictor.load(tmp_path / "d.xml")
    for image in random_images():
        ours, theirs = (detected(each.predict(image)) for each in (wanted, found))
        assert_same_objects(ours, theirs)
    several = [each.with_views((0.75, 1.0), flip=True).with_windows(64, 16) for each in (wanted, found)]
    assert_same_objects(*(detected(each.predict(image)) for each in several))


def test_a_classifier_of_one_size_through_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    card = ModelCard("classification", "resnet18", "linear", ("a", "b"), image_size=64, crop_pct=1.0)
    run, out = save_run(tmp_path / "run", card), tmp_path / "c.onnx"
    with pytest.raises(SystemExit) as end:
        main(["export", str(run), "--out", str(out), "--json"])
    assert end.value.code in (0, None)
    assert json.loads(capsys.readouterr().out)["sizes"]["height"] == 64
    assert re.search(r"traced; writing the file and comparing its values: about \d\d:\d\d left", caplog.text)
    ours, theirs = (classified(Predictor.load(path).predict(random_images()[1])) for path in (run, out))
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-5)


def test_wrong_values_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = ModelCard("classification", "test_resnet", "linear", ("a", "b"), image_size=32, crop_pct=1.0)
    run, out = save_run(tmp_path / "run", card), tmp_path / "out" / "m.onnx"

    def wrong(program: ExportedProgram, facts: Facts, path: Path, _opset: int | None) -> Graph:
        with torch.no_grad():
            other = raw_network(build_model(card), card)
        return write_onnx(export_program(other), facts, path)

    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], write=wrong))
    with pytest.raises(ConfigError, match=r"the limit is 0\.0001: nothing was written"):
        export_run(run, out, "onnx")
    assert list(out.parent.iterdir()) == []


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="differs from the network by nan"):
        check([Difference("logits", 1, 64, 64, float("nan"), float("nan"))], 1e-4, "onnx")


def test_each_output_is_judged_by_its_own_largest_value() -> None:
    large = Difference("logits", 1, 64, 64, max_abs=5e-3, max_rel=5e-6)
    check([large], 1e-4, "onnx")
    small = Difference("offsets", 1, 64, 64, max_abs=5e-5, max_rel=0.5)  # tiny values, half of them wrong
    with pytest.raises(ConfigError, match=r"the onnx file differs .* by 5.0e-05, 5.0e-01 of the largest value"):
        check([large, small], 1e-4, "onnx")


@follows_every_size
def test_a_network_that_cannot_be_followed_is_refused_with_the_names_of_some_that_can() -> None:
    card = replace(SEGMENTATION, model="resnet10t")  # average pooling in its shortcuts
    with pytest.raises(ConfigError, match=r"does not follow it .* resnet18, resnet50 and resnet101 export") as caught:
        export_program(raw_network(build_model(card), card))
    assert "resnet*" not in str(caught.value)
    card = replace(SEGMENTATION, model="resnet18")
    assert export_program(raw_network(build_model(card), card)).graph.nodes


def test_mask_rcnn_has_no_raw_file(tmp_path: Path) -> None:
    card = ModelCard("instance-segmentation", "test_resnet", "mask-rcnn", ("cell",), head_width=16)
    with pytest.raises(ConfigError, match=r"--raw is not for mask-rcnn, .*: leave it out"):
        export_run(save_run(tmp_path / "run", card), tmp_path / "m.onnx", "onnx", raw=True)


@pytest.mark.parametrize(
    ("out", "name", "limit", "message"),
    [
        ("m.onnx", "onx", 1e-4, "--format 'onx' is not known: one of onnx, openvino, pt2. Did you mean 'onnx'?"),
        ("m.onnx", "openvino", 1e-4, "m.onnx: files of --format openvino end in .xml"),
        (".", "onnx", 1e-4, "is a folder: give a file in it"),
        ("m.onnx", "onnx", 0.0, "--limit 0.0 is not allowed: more than 0"),
    ],
)
def test_messages(out: str, name: str, limit: float, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        check_request(tmp_path / out, name, limit)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["model.report.json", "model.bin"])
def test_a_folder_in_the_place_of_a_second_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=f"{name} is a folder where a file of --out"):
        check_request(tmp_path / "model.xml", "openvino", 1e-4)


def test_raw_files_keep_their_outputs_and_batches() -> None:
    raw = raw_network(build_model(DETECTION), DETECTION, raw=True)
    assert raw.facts.outputs == ("logits", "offsets")
    assert raw.example(2, 64, 96).shape == (2, 3, 64, 96)


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
