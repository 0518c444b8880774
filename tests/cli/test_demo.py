"""`cyclemlp demo` of every task: what it would train, what it draws, and one short run from start to image."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclemlp.cli import demo, main
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.objects import DetectionDataset
from cyclemlp.data.samples import digits
from cyclemlp.data.samples.blue_marble import HEIGHT, WIDTH
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.detection import demo as drawing
from cyclemlp.tasks.detection.decoding import Detections
from cyclemlp.tasks.detection.predict import DetectionResult
from cyclemlp.tasks.options import RunConfig, flat
from cyclemlp.tasks.recipes import read_run_config
from cyclemlp.tasks.registry import get_task
from cyclemlp.tasks.sample_demo import SampleDemo
from cyclemlp.training.run_folder import open_run

HEADS = {"segmentation": "semantic-fpn", "detection": "retinanet", "instance-segmentation": "mask-rcnn"}
TINY = """\
head-width: 16
input-scale: 0.5
steps: 1
batch-size: 1
crop-size: 64
evaluations: 1
workers: 0
device: cpu
head-convs: 1
"""


def demo_of(task: str) -> SampleDemo:
    shown = get_task(task).demo
    assert shown is not None
    return shown


def config_of(task: str, out: Path, max_time: str | None = None) -> RunConfig:
    return demo._config(task, Path("sample"), out / demo.RUN, max_time)


@pytest.mark.parametrize("task", HEADS)
def test_the_recipe_is_what_is_trained(task: str, tmp_path: Path) -> None:
    config = config_of(task, tmp_path)
    options = flat(config)
    assert (options["head"], options["model"], options["data"]) == (HEADS[task], "cyclemlp_nano", "sample")
    assert config.run_dir == tmp_path / "run"
    assert 300 <= (config.length.max_seconds or 0) <= 720
    assert config_of(task, tmp_path, "2m").length.max_seconds == 120


def test_a_run_that_was_begun_is_gone_on_with(tmp_path: Path) -> None:
    open_run(config_of("detection", tmp_path, "3m"))
    config = config_of("detection", tmp_path)
    assert config.resume
    assert config.length.max_time == "3m"


def test_another_tasks_folder_is_refused(tmp_path: Path) -> None:
    open_run(config_of("segmentation", tmp_path))
    with pytest.raises(ConfigError, match=r"holds the demo of another task \(its head is semantic-fpn\): choose"):
        config_of("detection", tmp_path)


def test_an_unknown_task_gets_a_proposal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["demo", "--task", "detecton"])
    assert left.value.code == 2
    assert "Did you mean 'detection'?" in capsys.readouterr().err


def test_scores_in_lines() -> None:
    boxes = {"AP": {"island": 0.5, "lake": None}, "mAP": 0.5, "AP50": 0.75}
    assert demo_of("detection").table(boxes)[1:] == [
        "class       AP",
        "island  0.5000",
        "lake    absent",
        "mAP     0.5000",
        "AP50    0.7500",
    ]
    masks = {f"{kind}_{name}": value for kind in ("mask", "box") for name, value in boxes.items()}
    assert demo_of("instance-segmentation").table(masks)[-2:] == ["box_mAP    0.5000", "box_AP50   0.7500"]


@pytest.fixture(scope="module")
def small_sample(tmp_path_factory: pytest.TempPathFactory) -> DetectionDataset:
    """Three images for training and one held out, with the digits of a made-up alphabet."""
    earth = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "read_earth", lambda: earth)
        patch.setattr(digits, "IMAGES", {"train": 3, "val": 1})
        return find_dataset(digits.prepare_digits(tmp_path_factory.mktemp("cache")), DetectionDataset)


def test_what_is_found_is_drawn_over_the_enlarged_image() -> None:
    boxes = np.array([[10, 5, 16, 9], [1, 1, 4, 4]], np.float32)
    found = Detections(boxes, np.array([0.8, 0.1], np.float32), np.array([1, 0]))
    black = DetectionResult(found, digits.CLASSES, np.zeros((20, 30, 3), np.uint8))
    large = drawing.enlarged(black)
    assert large.image.shape == (20 * drawing.ZOOM, 30 * drawing.ZOOM, 3)
    assert np.array_equal(large.boxes, drawing.ZOOM * boxes)
    image = np.asarray(drawing.arranged([large.draw()] * (drawing.COLUMNS + 1)))
    assert image.shape[:2] == (2 * digits.EDGE * drawing.ZOOM + 2 * drawing._TITLE, drawing.COLUMNS * 2 * digits.EDGE)


@pytest.fixture
def tiny(small_sample: DetectionDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo of detection as one step on small images, in an empty working folder."""
    torch.set_num_threads(1)
    recipe = tmp_path / "detection.yaml"
    recipe.write_text(TINY, encoding="utf-8")
    monkeypatch.setattr(demo_of("detection"), "prepare", lambda: small_sample.root)
    monkeypatch.setattr(demo_of("detection"), "recipe", str(recipe))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.usefixtures("tiny")
def test_from_start_to_image(capsys: pytest.CaptureFixture[str]) -> None:
    """A step of training; again without any: scored and drawn again."""
    for _ in range(2):
        with pytest.raises(SystemExit) as left:
            main(["demo", "--task", "detection", "--json"])
        assert left.value.code == 0
        result = json.loads(capsys.readouterr().out)
        assert result == json.loads(Path("demo-detection/result.json").read_text(encoding="utf-8"))
        assert (result["task"], result["data"], result["training"]["steps"]) == ("detection", "digits", 1)
        assert read_run_config(Path("demo-detection/run"))["init"] is None
        assert result["environment"]["command"] == "cyclemlp demo --task detection"
        assert set(result["metrics"]["AP"]) <= set(digits.CLASSES)
        with Image.open(result["picture"]) as image:
            assert image.size == (drawing.COLUMNS * 2 * digits.EDGE, 2 * digits.EDGE + 2 * drawing._TITLE)
