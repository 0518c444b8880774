"""Exported files give the checkpoint's values in every runtime, drawn and all, and without torch where they can."""

import json
import logging
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image
from predictions import classified, detected, segmented
from torch.export import ExportedProgram

from cyclemlp.cli import main
from cyclemlp.errors import ConfigError
from cyclemlp.export.formats import FORMATS, Graph, write_onnx
from cyclemlp.export.program import RawNetwork, export_program, raw_network
from cyclemlp.export.run import check_request, export_run, parse_size, trained_size, write_checked
from cyclemlp.export.verify import Difference, check, report_path
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.inference.predictor import Predictor
from cyclemlp.inference.runtimes.facts import Facts
from cyclemlp.models.cyclemlp import SIZES, CycleMLPSizes
from cyclemlp.models.forms.fused_mixer import BlendedMixer
from cyclemlp.tasks.card import ModelCard, build_model, load_model, save_model
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


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """A segmentation run and its file in each format."""
    folder = tmp_path_factory.mktemp("export")
    run = save_run(folder / "run", SEGMENTATION)
    files = {name: folder / f"{name}{each.suffix}" for name, each in FORMATS.items()}
    model, card = load_model(run)
    raw = raw_network(model, card)
    program = export_program(raw)
    for name, path in files.items():
        write_checked(program, raw, model, path, name)
    return run, files


@pytest.mark.parametrize("name", FORMATS)
def test_masks_are_the_checkpoints(exported: tuple[Path, dict[str, Path]], name: str) -> None:
    run, files = exported
    wanted, found = Predictor.load(run), Predictor.load(files[name])
    assert found.card.classes == SEGMENTATION.classes
    for image in random_images():
        ours, theirs = (segmented(each.predict(image)) for each in (wanted, found))
        assert np.mean(ours.mask == theirs.mask) >= 0.9999  # logits differ by rounding, so ties may fall otherwise
        assert np.asarray(theirs.draw()).shape[1] >= image.shape[1]


@pytest.mark.parametrize("name", FORMATS)
def test_the_report_says_what_was_compared(exported: tuple[Path, dict[str, Path]], name: str) -> None:
    report = json.loads(report_path(exported[1][name]).read_text())
    assert report["format"] == name
    parity = report["parity"]
    assert parity["max_rel"] <= parity["limit"]
    assert {trial["batch"] for trial in parity["trials"]} == {1, 2, 3}
    assert len({(trial["height"], trial["width"]) for trial in parity["trials"]}) == 4
    assert report["versions"]["torch"] == torch.__version__.split("+")[0]


def test_the_onnx_graph_stays_small_and_plain(exported: tuple[Path, dict[str, Path]]) -> None:
    graph = json.loads(report_path(exported[1]["onnx"]).read_text())["graph"]
    assert set(graph["opset"]) == {"ai.onnx"}  # no custom operators
    assert graph["nodes"] <= 320
    assert len(graph["operators"]) <= 24


def test_the_onnx_file_is_converted_to_half_precision(exported: tuple[Path, dict[str, Path]]) -> None:
    import onnx
    from onnxruntime import InferenceSession
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(exported[1]["onnx"])
    casts = [
        node for node in model.graph.node if node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.FLOAT
    ]
    assert casts == []  # onnxconverter-common does not follow a size that becomes a number
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 96), dtype=np.float32)
    half = convert_float_to_float16(model, keep_io_types=True).SerializeToString()
    found, expected = (
        InferenceSession(each).run(None, {"images": images})[0] for each in (half, str(exported[1]["onnx"]))
    )
    assert np.linalg.norm(found - expected) <= 0.01 * np.linalg.norm(expected)


def test_files_do_not_name_folders_of_this_machine(exported: tuple[Path, dict[str, Path]]) -> None:
    files = exported[1]
    source = str(Path(torch.__file__).parents[1]).encode()
    with ZipFile(files["pt2"]) as archive:
        contents = [archive.read(entry) for entry in archive.namelist()]
    for content in [*contents, files["onnx"].read_bytes(), files["openvino"].read_bytes()]:
        assert source not in content


@pytest.mark.parametrize("name", FORMATS)
def test_four_threads_share_a_predictor(exported: tuple[Path, dict[str, Path]], name: str) -> None:
    predictor = Predictor.load(exported[1][name], "cpu")
    images = [random_images()[number % len(SIZES_TRIED)] for number in range(4)]
    alone = [segmented(predictor.predict(image)).mask for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: [segmented(predictor.predict(image)).mask for _ in range(10)], images))
    for expected, found in zip(alone, together, strict=True):
        assert all(np.array_equal(mask, expected) for mask in found)


@pytest.mark.parametrize("name", FORMATS)
def test_a_predictor_can_be_pickled(
    exported: tuple[Path, dict[str, Path]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, image = exported[1][name], random_images()[2]
    monkeypatch.chdir(file.parent)
    predictor = Predictor.load(file.name, "cpu").with_views((1.0, 1.5))
    stored = pickle.dumps(predictor)
    monkeypatch.chdir("/")
    found = pickle.loads(stored)
    assert found.card == predictor.card
    ours, theirs = (segmented(each.predict(image)) for each in (predictor, found))
    assert np.array_equal(ours.mask, theirs.mask)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_prediction_without_torch_and_without_extras(
    exported: tuple[Path, dict[str, Path]], name: str, tmp_path: Path
) -> None:
    run, files = exported
    image = random_images()[2]
    Image.fromarray(image).save(tmp_path / "image.png")
    script = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        unwanted = 'torch torchvision timm faster_coco_eval lightning matplotlib'\n"
        "        if name.split('.')[0] in unwanted.split():\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import numpy as np\n"
        "from cyclemlp.inference.predictor import Predictor\n"
        "predictor = Predictor.load(sys.argv[1])\n"
        "predictor.predict(sys.argv[2]).draw()\n"
        "both = [each.predict(sys.argv[2]).mask for each in (predictor, predictor.with_views((1, 2), flip=True))]\n"
        "np.save(sys.argv[3], both)\n"
    )
    arguments = [str(files[name]), str(tmp_path / "image.png"), str(tmp_path / "mask.npy")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)
    predictor = Predictor.load(run)
    both = (predictor, predictor.with_views((1, 2), flip=True))
    wanted = [segmented(each.predict(image)).mask for each in both]
    assert np.mean(np.load(tmp_path / "mask.npy") == wanted) >= 0.9999


def test_signals_are_safe_after_networks_were_dropped(exported: tuple[Path, dict[str, Path]]) -> None:
    """A process that drops OpenVINO's networks in the order it made them outlives the end of a child."""
    script = (
        "import signal, subprocess, sys\n"
        "from cyclemlp.inference.predictor import Predictor\n"
        "first = Predictor.load(sys.argv[1])\n"
        "second = Predictor.load(sys.argv[1])\n"
        "del first, second\n"
        "signal.signal(signal.SIGCHLD, lambda *_: print('a child ended'))\n"
        "subprocess.run(['true'])\n"
    )
    command = [sys.executable, "-c", script, str(exported[1]["openvino"])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "a child ended\n"), done.stderr


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
    """Every box, within a tenth of a pixel, with its class and score; of files that decode see test_export_page.py."""
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
    card = ModelCard("classification", "cyclemlp_nano", "linear", ("a", "b"), image_size=32, crop_pct=1.0)
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


def test_a_network_that_cannot_be_followed_is_refused_with_the_names_of_some_that_can() -> None:
    card = replace(SEGMENTATION, model="resnet10t")  # average pooling in its shortcuts
    with pytest.raises(ConfigError, match=r"does not follow it .* resnet18, resnet50 and resnet101 export") as caught:
        export_program(raw_network(build_model(card), card))
    assert "resnet*" not in str(caught.value)
    card = replace(SEGMENTATION, model="resnet18")
    assert export_program(raw_network(build_model(card), card)).graph.nodes


def test_mask_rcnn_is_refused_in_one_line(tmp_path: Path) -> None:
    card = ModelCard("instance-segmentation", "cyclemlp_nano", "mask-rcnn", ("cell",), head_width=16)
    with pytest.raises(ConfigError, match="a mask-rcnn network cannot be exported"):
        export_run(save_run(tmp_path / "run", card), tmp_path / "m.onnx", "onnx")


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
