"""`cyclemlp demo` of every task: what it would train, what it draws, and one short run from start to image."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclemlp.cli import demo, main
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.images import ImageInput, read_image
from cyclemlp.data.objects import DetectionDataset
from cyclemlp.data.samples import blue_marble_instances
from cyclemlp.data.samples.blue_marble_instances import EDGE, prepare_blue_marble_instances
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.base import Predict
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
    assert config.out == tmp_path / "run"
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


def object_result(mask: np.ndarray | None = None) -> DetectionResult:
    """A lake in a black image of 20x30 pixels."""
    box = np.array([[10, 5, 16, 9]], np.float32)
    found = Detections(box, np.array([0.8], np.float32), np.array([1]))
    masks = None if mask is None else mask[None]
    return DetectionResult(found, ("island", "lake"), np.zeros((20, 30, 3), np.uint8), masks)


def test_boxes_stand_around_their_objects() -> None:
    pixels = np.asarray(drawing.painted(object_result()))
    assert pixels.shape == (20 * drawing.ZOOM, 30 * drawing.ZOOM, 3)
    lake = (pixels == drawing.COLOURS[1]).all(axis=2)
    assert not lake[10:18, 20:32].any()  # the object itself is left free
    frame = np.zeros_like(lake)
    frame[7:21, 17:35] = True
    frame[10:18, 20:32] = False
    np.testing.assert_array_equal(lake, frame)


def test_masks_are_painted_where_they_are_known() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[6:8, 11:15] = 1
    pixels = np.asarray(drawing.painted(object_result(mask)))
    painted = np.array([int(value * drawing.MASK_OPACITY) for value in drawing.COLOURS[1]])
    np.testing.assert_array_equal((pixels == painted).all(axis=2), mask.repeat(2, axis=0).repeat(2, axis=1) == 1)


@pytest.fixture(scope="module")
def small_sample(tmp_path_factory: pytest.TempPathFactory) -> DetectionDataset:
    """Two rows of four tiles, an island with a lake in the lower ones; the first two columns are held out."""
    mask = np.zeros((2 * EDGE, 4 * EDGE), np.uint8)
    for left in range(0, 4 * EDGE, EDGE):
        mask[EDGE + 50 : EDGE + 100, left + 30 : left + 90] = 1
        mask[EDGE + 60 : EDGE + 80, left + 40 : left + 60] = 2
    image = np.where(mask[..., None] == 1, 200, 40).repeat(3, axis=2).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blue_marble_instances, "read_earth", lambda: image)
        patch.setattr(blue_marble_instances, "read_earth_mask", lambda: mask)
        return find_dataset(prepare_blue_marble_instances(tmp_path_factory.mktemp("cache")), DetectionDataset)


def exact(dataset: DetectionDataset) -> Predict:
    """Finds what is labelled, and an improbable island in every image."""
    split = dataset.splits["val"]

    def predict(path: ImageInput) -> DetectionResult:
        assert isinstance(path, Path)
        record = split.records[split.images.index(path)]
        boxes = np.concatenate([record.boxes_xyxy, np.array([[100, 200, 120, 210]], np.float32)])
        scores = np.array([0.9] * len(record.labels) + [0.1], np.float32)
        found = Detections(boxes, scores, np.append(record.labels, 0))
        return DetectionResult(found, dataset.classes, read_image(path))

    return predict


def test_the_image_has_what_was_found_next_to_the_labels(small_sample: DetectionDataset) -> None:
    image = np.asarray(drawing.draw_held_out(exact(small_sample), small_sample.classes, small_sample.splits["val"]))
    strip = 540 * drawing.ZOOM
    found, labels = (image[200:-400, x : x + strip] for x in (drawing._MARGIN, drawing._MARGIN + strip + drawing._GAP))
    np.testing.assert_array_equal(found, labels)
    for colour in drawing.COLOURS:
        assert (found == colour).all(axis=2).any()


@pytest.fixture
def tiny(small_sample: DetectionDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demos of segmentation and detection as one step each on small images, in an empty working folder."""
    torch.set_num_threads(1)
    masks = tmp_path / "masks-of-two"
    for split in ("train", "val"):
        for kind, value in (("images", (9, 9, 9)), ("masks", 1)):
            (masks / kind / split).mkdir(parents=True)
            Image.new("RGB" if kind == "images" else "L", (64, 64), value).save(masks / kind / split / "a.png")
    (masks / "classes.txt").write_text("ocean\nland\n", encoding="utf-8")
    monkeypatch.setattr(demo_of("segmentation"), "prepare", lambda: masks)
    monkeypatch.setattr(demo_of("detection"), "prepare", lambda: small_sample.root)
    for task, more in (("segmentation", ""), ("detection", "head-convs: 1\nobject-crops: 1.0\n")):
        recipe = tmp_path / f"{task}.yaml"
        recipe.write_text(TINY + more, encoding="utf-8")
        monkeypatch.setattr(demo_of(task), "recipe", str(recipe))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.usefixtures("tiny")
def test_a_finished_demo_of_segmentation_gives_the_backbone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("demo").mkdir()
    shown = demo_of("segmentation")
    options = ["--out", "demo/run", "--data", str(shown.prepare()), "--config", shown.recipe]
    with pytest.raises(SystemExit):
        main(["train", "segmentation", *options])
    Path("demo/result.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["demo", "--task", "detection", "--json"])
    assert left.value.code == 0
    assert read_run_config(Path("demo-detection/run"))["init"] == "demo/run"
    assert not Path("demo-detection/backbone").exists()
    capsys.readouterr()


@pytest.mark.usefixtures("tiny")
def test_from_start_to_image(capsys: pytest.CaptureFixture[str]) -> None:
    """A step of training for the backbone, a step for the boxes; again without any: scored and drawn again."""
    for _ in range(2):
        with pytest.raises(SystemExit) as left:
            main(["demo", "--task", "detection", "--json"])
        assert left.value.code == 0
        result = json.loads(capsys.readouterr().out)
        assert result == json.loads(Path("demo-detection/result.json").read_text(encoding="utf-8"))
        assert (result["task"], result["data"], result["training"]["steps"]) == (
            "detection",
            "blue-marble-instances",
            1,
        )
        assert (result["training"]["start"]["task"], result["training"]["start"]["steps"]) == ("segmentation", 1)
        assert read_run_config(Path("demo-detection/run"))["init"] == "demo-detection/backbone"
        assert result["environment"]["command"] == "cyclemlp demo --task detection"
        assert set(result["metrics"]["AP"]) == {"island", "lake"}
        with Image.open(result["earth"]) as image:
            assert image.width > 2 * 540 * drawing.ZOOM
