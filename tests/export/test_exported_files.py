"""A file of each task in each format: the code of docs/export.md and cyclemlp predict with it what the run does."""

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from every_format import EVERY_FORMAT, file_of, needs_pt2, write_every_format
from PIL import Image
from predictions import classified, detected, segmented

from cyclemlp.errors import ConfigError
from cyclemlp.export.formats import FORMATS
from cyclemlp.export.verify import report_path
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.inference.predictor import Predictor
from cyclemlp.inference.runtimes.openvino import core
from cyclemlp.models.cyclemlp import SIZES, CycleMLPSizes
from cyclemlp.tasks.card import ModelCard, build_model, save_model
from cyclemlp.tasks.options import PredictionOptions

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
OPEN = dict(zip(("onnx", "openvino", "pt2"), BLOCKS[:3], strict=True))
USE = dict(zip(("detection", "instance-segmentation", "segmentation", "classification"), BLOCKS[3:], strict=True))
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
    "instance-segmentation": ModelCard(
        "instance-segmentation",
        "test_resnet",
        "mask-rcnn",
        ("cell", "speck"),
        head_width=16,
        detection=HEAD,
        input_scale=1.25,
        shown_score=0.35,
    ),
    "segmentation": ModelCard(
        "segmentation",
        "cyclemlp_nano",
        "semantic-fpn",
        ("sea", "land"),
        head_width=16,
        ground_resolution=(10.0, 9.5, 12.0),
    ),
    "classification": ModelCard("classification", "cyclemlp_nano", "linear", ("a", "b"), image_size=64, crop_pct=0.875),
}
WITHOUT_TORCH = """import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in 'torch torchvision timm faster_coco_eval lightning matplotlib'.split():
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Blocked())
"""
OBJECT_TASKS = ("detection", "instance-segmentation")
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


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """For a task a folder with a run of it and its file in each format, each exported once."""

    @cache
    def export(task: str) -> Path:
        card, folder = CARDS[task], tmp_path_factory.mktemp(task)
        model = untrained(card)
        save_model(folder / "run", model, card)
        write_every_format(model, card, folder)
        return folder

    return export


@pytest.fixture(params=CARDS)
def exported(request: pytest.FixtureRequest, folder_of: Callable[[str], Path]) -> tuple[str, Path]:
    """A task and its folder."""
    return request.param, folder_of(request.param)


Segmentation = tuple[Path, dict[str, Path]]


@pytest.fixture
def segmentation(folder_of: Callable[[str], Path]) -> Segmentation:
    """A segmentation run and its file in each format."""
    folder = folder_of("segmentation")
    return folder / "run", {name: file_of(folder, name) for name in FORMATS}


@pytest.fixture(scope="module")
def opened() -> Callable[[Path], Predictor]:
    """The predictor of a run or file, opened once: to read a graph for any size from .pt2 takes seconds."""
    return cache(lambda path: Predictor.load(path, "cpu"))


def random_images() -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    numbers = np.random.default_rng(0)
    return [numbers.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SHAPES[:3]]


def opened_by_hand(runtime: str) -> dict[str, Any]:
    """The names that the page's code defines when it opens the file in the present folder."""
    names: dict[str, Any] = {}
    shared = core()
    with pytest.MonkeyPatch.context() as patch:
        # Two that end in the order they were made leave the process with a freed signal stack.
        patch.setattr("openvino.Core", lambda: shared)
        exec(OPEN[runtime], names)
    return names


@pytest.mark.parametrize("runtime", EVERY_FORMAT)
def test_the_code_predicts_what_cyclemlp_does(
    exported: tuple[str, Path], runtime: str, opened: Callable[[Path], Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, folder = exported
    monkeypatch.chdir(folder / runtime)
    run, file = opened(folder / "run"), opened(file_of(folder, runtime))
    numbers, by_hand = np.random.default_rng(0), opened_by_hand(runtime)
    turned = Image.Exif()
    turned[0x0112] = 6  # as a telephone stores what it takes upright
    for shape in SHAPES:
        Image.fromarray(numbers.integers(0, 256, (*shape, 3), dtype=np.uint8)).save("photo.png", exif=turned)
        found = dict(by_hand)
        exec(USE[task], found)
        for predictor in (run, file):
            described = predictor.described_as(predictor.task.card_for_prediction(predictor.card, PredictionOptions()))
            compare(found, described.predict("photo.png"))


def compare(found: dict[str, Any], result: Any) -> None:
    if "found" in found:
        objects = detected(result)
        assert len(found["found"]) == len(objects) > 0
        # Scores that differ by rounding alone may stand in another order.
        masks = [objects.mask(i) if objects.has_masks else np.zeros((0, 0), bool) for i in range(len(objects))]
        wanted = sorted(zip(objects.names, objects.scores, objects.boxes.tolist(), masks, strict=True), key=by_box)
        for ours, theirs in zip(sorted(found["found"], key=by_box), wanted, strict=True):
            assert ours[0] == theirs[0]
            np.testing.assert_allclose(ours[1], theirs[1], atol=1e-5)
            np.testing.assert_allclose(ours[2], theirs[2], atol=0.1)
            if objects.has_masks:
                assert same_pixels(ours[3], theirs[3])
    elif "mask" in found:
        assert np.mean(found["mask"] == segmented(result).mask) >= 0.999
    else:
        np.testing.assert_allclose(found["probabilities"], classified(result).probabilities, atol=1e-5)


def same_pixels(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> bool:
    """Whether masks (H, W) overlap (IoU) by more than 0.99, where they have pixels."""
    return bool((ours & theirs).sum() > 0.99 * (ours | theirs).sum() or not (ours | theirs).any())


def by_box(entry: tuple[Any, ...]) -> list[float]:
    return [round(float(value), 1) for value in entry[2]]


def test_the_onnx_file_is_for_old_runtimes_and_its_axes_have_names(exported: tuple[str, Path]) -> None:
    import onnx

    task, folder = exported
    model = onnx.load(file_of(folder, "onnx"))
    assert (model.opset_import[0].version, model.ir_version) == (18, 8)
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    if task in OBJECT_TASKS:
        objects = {"boxes": ["objects", 4], "scores": ["objects"], "labels": ["objects"]}
        if task == "instance-segmentation":
            objects["masks"] = ["objects", 28, 28]
        assert axes == {"images": [1, 3, "height", "width"], **objects}
    elif task == "segmentation":
        images = ["batch", 3, "height", "width"]
        assert axes == {"images": images, "logits": ["batch", 2, "height", "width"]}
    else:
        assert axes == {"images": ["batch", 3, 64, 64], "logits": ["batch", 2]}


def test_boxes_that_a_file_has_dropped_cannot_be_asked_for(exported: tuple[str, Path]) -> None:
    task, folder = exported
    predictor = Predictor.load(file_of(folder, "onnx"))
    if task not in OBJECT_TASKS:
        assert predictor.described_as(predictor.card).card == predictor.card
        return
    for options, message in (
        (replace(HEAD, score_threshold=0.1), "--score-threshold 0.1: this network drops boxes below 0.2 by itself"),
        (replace(HEAD, nms=0.7), "--nms 0.7: this network drops boxes that overlap by more than 0.5 by itself"),
    ):
        with pytest.raises(ConfigError, match=message):
            predictor.described_as(replace(predictor.card, detection=options))


def test_the_keys_of_the_metadata_are_listed(exported: tuple[str, Path]) -> None:
    keys = set(by_hand_facts(exported[1])) - {"format", "head_width", "model_options"}
    listed = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE))))
    assert keys <= listed


def by_hand_facts(folder: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(OPEN["onnx"].replace('"model.onnx"', repr(str(file_of(folder, "onnx")))), names)
    facts: dict[str, Any] = names["facts"]
    return facts


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_masks_are_the_checkpoints(segmentation: Segmentation, name: str, opened: Callable[[Path], Predictor]) -> None:
    run, files = segmentation
    wanted, found = opened(run), opened(files[name])
    assert found.card.classes == CARDS["segmentation"].classes
    for image in random_images():
        ours, theirs = (segmented(each.predict(image)) for each in (wanted, found))
        assert np.mean(ours.mask == theirs.mask) >= 0.9999  # logits differ by rounding, so ties may fall otherwise
        assert np.asarray(theirs.draw()).shape[1] >= image.shape[1]


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_the_report_says_what_was_compared(segmentation: Segmentation, name: str) -> None:
    report = json.loads(report_path(segmentation[1][name]).read_text())
    assert report["format"] == name
    parity = report["parity"]
    assert parity["max_rel"] <= parity["limit"]
    assert {trial["batch"] for trial in parity["trials"]} == {1, 2, 3}
    assert len({(trial["height"], trial["width"]) for trial in parity["trials"]}) == 4
    assert report["versions"]["torch"] == torch.__version__.split("+")[0]


def test_the_onnx_graph_stays_small_and_plain(segmentation: Segmentation) -> None:
    graph = json.loads(report_path(segmentation[1]["onnx"]).read_text())["graph"]
    assert set(graph["opset"]) == {"ai.onnx"}  # no custom operators
    assert graph["nodes"] <= 352  # of version 18; from 20 on GELU is one operator
    assert len(graph["operators"]) <= 24


def test_the_onnx_file_is_converted_to_half_precision(segmentation: Segmentation) -> None:
    import onnx
    from onnxruntime import InferenceSession
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(segmentation[1]["onnx"])
    casts = [
        node for node in model.graph.node if node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.FLOAT
    ]
    assert casts == []  # onnxconverter-common does not follow a size that becomes a number
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 96), dtype=np.float32)
    half = convert_float_to_float16(model, keep_io_types=True).SerializeToString()
    found, expected = (
        InferenceSession(each).run(None, {"images": images})[0] for each in (half, str(segmentation[1]["onnx"]))
    )
    assert np.linalg.norm(found - expected) <= 0.01 * np.linalg.norm(expected)


@needs_pt2
def test_files_do_not_name_folders_of_this_machine(segmentation: Segmentation) -> None:
    files = segmentation[1]
    source = str(Path(torch.__file__).parents[1]).encode()
    with ZipFile(files["pt2"]) as archive:
        contents = [archive.read(entry) for entry in archive.namelist()]
    for content in [*contents, files["onnx"].read_bytes(), files["openvino"].read_bytes()]:
        assert source not in content


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_four_threads_share_a_predictor(
    segmentation: Segmentation, name: str, opened: Callable[[Path], Predictor]
) -> None:
    predictor, several = opened(segmentation[1][name]), random_images()
    images = [several[number % len(several)] for number in range(4)]
    alone = [segmented(predictor.predict(image)).mask for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: [segmented(predictor.predict(image)).mask for _ in range(10)], images))
    for expected, found in zip(alone, together, strict=True):
        assert all(np.array_equal(mask, expected) for mask in found)


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_a_predictor_can_be_pickled(segmentation: Segmentation, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file, image = segmentation[1][name], random_images()[2]
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
    segmentation: Segmentation, name: str, opened: Callable[[Path], Predictor], tmp_path: Path
) -> None:
    run, files = segmentation
    image = random_images()[2]
    Image.fromarray(image).save(tmp_path / "image.png")
    script = (
        f"{WITHOUT_TORCH}"
        "import numpy as np\n"
        "from cyclemlp.inference.predictor import Predictor\n"
        "predictor = Predictor.load(sys.argv[1])\n"
        "predictor.predict(sys.argv[2]).draw()\n"
        "both = [each.predict(sys.argv[2]).mask for each in (predictor, predictor.with_views((1, 2), flip=True))]\n"
        "np.save(sys.argv[3], both)\n"
    )
    arguments = [str(files[name]), str(tmp_path / "image.png"), str(tmp_path / "mask.npy")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)
    predictor = opened(run)
    both = (predictor, predictor.with_views((1, 2), flip=True))
    wanted = [segmented(each.predict(image)).mask for each in both]
    assert np.mean(np.load(tmp_path / "mask.npy") == wanted) >= 0.9999


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_objects_with_masks_without_torch(name: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder, image = folder_of("instance-segmentation"), random_images()[2]
    Image.fromarray(image).save(tmp_path / "image.png")
    script = (
        f"{WITHOUT_TORCH}"
        "import numpy as np\n"
        "from cyclemlp.inference.predictor import Predictor\n"
        "found = Predictor.load(sys.argv[1]).predict(sys.argv[2])\n"
        "np.save(sys.argv[3], sum(found.mask(i).astype(int) for i in range(len(found))))\n"
    )
    arguments = [file_of(folder, name), tmp_path / "image.png", tmp_path / "masks.npy"]
    subprocess.run([sys.executable, "-c", script, *map(str, arguments)], check=True)
    wanted = detected(Predictor.load(folder / "run", "cpu").predict(image))
    assert np.mean(np.load(tmp_path / "masks.npy") == sum(map(wanted.mask, range(len(wanted))))) >= 0.999


def test_a_file_of_mask_rcnn_that_finds_nothing(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    import onnx
    from onnxruntime import InferenceSession

    model = onnx.load(file_of(folder_of("instance-segmentation"), "onnx"))
    (threshold,) = (node.input[1] for node in model.graph.node if node.op_type == "Greater")
    (value,) = (each for each in model.graph.initializer if each.name == threshold)
    value.CopyFrom(onnx.numpy_helper.from_array(np.full((), 0.999, np.float32), threshold))
    onnx.save(model, tmp_path / "strict.onnx")
    images = np.zeros((1, 3, 64, 96), dtype=np.float32)
    opened = core().compile_model(tmp_path / "strict.onnx", "CPU")({"images": images})
    first = InferenceSession(tmp_path / "strict.onnx").run(None, {"images": images})
    for found in (first, [opened[name] for name in ("boxes", "scores", "labels", "masks")]):
        assert [each.shape for each in found] == [(0, 4), (0,), (0,), (0, 28, 28)]


def test_signals_are_safe_after_networks_were_dropped(segmentation: Segmentation) -> None:
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
    command = [sys.executable, "-c", script, str(segmentation[1]["openvino"])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "a child ended\n"), done.stderr
