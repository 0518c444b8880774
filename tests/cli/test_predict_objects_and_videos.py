"""`cyclemlp predict` and `eval` of detectors, and videos for every task."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from command_line import command, refused
from PIL import Image
from predictions import detected

from cyclemlp.errors import ConfigError
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.inference.journal import JOURNAL_NAME
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard, build_model, save_model

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = ("cell", "speck")
CARDS = {
    "detection": ModelCard(
        "detection", "resnet18", "retinanet", CLASSES, head_width=8, detection=DetectionHead(head_convs=1, detections=5)
    ),
    "instance-segmentation": ModelCard(
        "instance-segmentation",
        "resnet18",
        "mask-rcnn",
        CLASSES,
        head_width=8,
        detection=DetectionHead(head_convs=1, detections=4, candidates=20, score_threshold=0.0),
    ),
    "segmentation": ModelCard("segmentation", "resnet18", "semantic-fpn", CLASSES, head_width=8),
    "classification": ModelCard("classification", "resnet18", "linear", CLASSES, image_size=64, crop_pct=1.0),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run folder of each task with random weights; detectors find the top-scoring five or four of everything."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    for task, card in CARDS.items():
        save_model(folder / task, build_model(card), card)
    return {task: folder / task for task in CARDS}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of noise, 64 x 48, at 10 a second."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(6):
            pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def mixed(tmp_path: Path, clip: Path) -> Path:
    """A folder with a photograph, the clip, and a text."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "clip.png")  # of the same name
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    (folder / "notes.txt").write_text("not for us")
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def table(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def shapes(path: str | Path) -> list[tuple[int, int]]:
    """(height, width) of the frames of a video."""
    with av.open(str(path)) as container:
        return [(frame.height, frame.width) for frame in container.decode(video=0)]


@pytest.mark.parametrize("task", ["detection", "instance-segmentation"])
def test_objects_in_a_folder_of_photographs_and_videos(
    runs: dict[str, Path], task: str, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command("predict", runs[task], mixed, "--out", out, "--score-threshold", "0", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["task"], report["failed"]) == (task, [])
    (photograph,), (video,) = report["images"], report["videos"]
    # The video comes first by name and keeps it.
    of_the_video = {f"clip_{kind}" for kind in ("overlay.mp4", "frames.json", "frames.csv", "coco_results.json")}
    of_all_images = {"objects.json", "objects.csv", "coco_results.json"}
    assert names(out) == {*of_the_video, *of_all_images, "clip-2_overlay.png"}
    _check_photograph(runs[task], mixed / "clip.png", photograph, report)
    _check_video(video)


def _check_photograph(run: Path, image: Path, entry: dict[str, Any], report: dict[str, Any]) -> None:
    expected = detected(Predictor.load(run).predict(image))
    objects = json.loads(Path(report["objects"]).read_text())
    assert [each["id"] for each in objects] == [1]
    assert objects[0]["objects"] == entry["objects"]
    assert len(entry["objects"]) == len(entry["coco"]) > 0
    rows = table(report["table"])
    assert [row["class"] for row in rows] == [each["class"] for each in entry["objects"]]
    assert {row["image"] for row in rows} == {str(image)}
    results = json.loads(Path(report["coco_results"]).read_text())
    assert {found["image_id"] for found in results} == {1}
    for found, box in zip(results, rows, strict=True):
        left, top, width, height = found["bbox"]
        assert [left, top, left + width, top + height] == pytest.approx(
            [float(box[edge]) for edge in ("left", "top", "right", "bottom")], abs=0.01
        )
        assert ("segmentation" in found) == expected.has_masks


def _check_video(entry: dict[str, Any]) -> None:
    assert (entry["size"], entry["count"], entry["every"]) == ({"height": 48, "width": 64}, 6, 1)
    assert entry["frames_per_second"] == 10
    assert shapes(entry["overlay"]) == [(48, 64)] * 6
    frames = json.loads(Path(entry["frames"]).read_text())
    assert [frame["frame"] for frame in frames] == [1, 2, 3, 4, 5, 6]
    assert [frame["seconds"] for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    results = json.loads(Path(entry["coco_results"]).read_text())
    rows = table(entry["table"])
    counts = [len(frame["objects"]) for frame in frames]
    assert sum(counts) == len(rows) == len(results) > 0
    numbers = [frame["frame"] for frame in frames for _ in frame["objects"]]
    assert [int(row["frame"]) for row in rows] == [found["image_id"] for found in results] == numbers
    assert [float(row["score"]) for row in rows] == pytest.approx([found["score"] for found in results], abs=1e-4)


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_videos_of_the_other_tasks(
    runs: dict[str, Path], task: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command("predict", runs[task], clip, "--out", out, "--every", "2") == 0
    assert capsys.readouterr().out == f"{clip}: 3 frames -> {out / 'clip_overlay.mp4'}\n"
    assert names(out) == {"clip_overlay.mp4", "clip_frames.json", "clip_frames.csv"}
    assert len(set(shapes(out / "clip_overlay.mp4"))) == 1
    frames, rows = json.loads((out / "clip_frames.json").read_text()), table(out / "clip_frames.csv")
    assert [(frame["frame"], frame["seconds"]) for frame in frames] == [(1, 0.0), (3, 0.2), (5, 0.4)]
    assert [(row["frame"], row["seconds"]) for row in rows] == [("1", "0.0"), ("3", "0.2"), ("5", "0.4")]
    for frame, row in zip(frames, rows, strict=True):
        if task == "segmentation":
            assert [float(row[name]) for name in CLASSES] == pytest.approx(list(frame["shares"].values()), abs=1e-6)
        else:
            assert row["label"] == frame["label"]
            assert float(row["probability"]) == pytest.approx(frame["top5"][frame["label"]], abs=1e-6)


def test_without_drawings_there_is_no_video(
    runs: dict[str, Path], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command("predict", runs["detection"], clip, "--out", out, "--no-pictures", "--every", "5") == 0
    assert names(out) == {"clip_frames.json", "clip_frames.csv", "clip_coco_results.json"}
    assert capsys.readouterr().out == f"{clip}: 2 frames -> {out / 'clip_frames.json'}\n"
    assert json.loads((out / "clip_coco_results.json").read_text()) == []  # nothing is likely, and that is said, too
    assert table(out / "clip_frames.csv") == []


def test_what_is_no_video_is_reported_after_the_others(
    runs: dict[str, Path], mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mixed / "clip.mp4").write_bytes(b"nothing of the kind")
    out = tmp_path / "out"
    assert command("predict", runs["classification"], mixed, "--out", out, "--no-pictures", "--json") == 3
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (len(report["images"]), report["videos"]) == (1, [])
    assert [failed["video"] for failed in report["failed"]] == [str(mixed / "clip.mp4")]
    assert "1 of 2 files failed, the others are written: " in captured.err
    assert "clip.mp4 is not a video, or is incomplete" in captured.err
    assert names(out) == {"predictions.csv", "predictions.json", JOURNAL_NAME}


def test_without_the_video_library_images_are_done(
    runs: dict[str, Path],
    mixed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert command("predict", runs["classification"], mixed, "--out", tmp_path / "out", "--no-pictures") == 3
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{mixed / 'clip.png'}: ")
    assert "this needs av, which is not installed: pip install 'cyclemlp[video]'" in captured.err


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 2)])
def test_a_video_that_is_stopped_leaves_nothing(
    runs: dict[str, Path],
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
) -> None:
    predict, done = Predictor.predict, []

    def stopped_at_the_third(self: Predictor, image: Any) -> Any:
        done.append(image)
        if len(done) == 3:
            raise error
        return predict(self, image)

    monkeypatch.setattr(Predictor, "predict", stopped_at_the_third)
    assert command("predict", runs["detection"], clip, "--out", tmp_path / "out") == status
    assert names(tmp_path / "out") == set()


def test_damage_in_the_middle_leaves_nothing(
    runs: dict[str, Path], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = clip.read_bytes()
    start = content.index(b"mdat") + len(content) // 3
    (tmp_path / "a.mp4").write_bytes(content[:start] + b"\xff" * 3000 + content[start + 3000 :])
    message = refused(capsys, "predict", runs["classification"], tmp_path / "a.mp4", "--out", tmp_path / "out")
    assert "a.mp4 is damaged or incomplete (" in message
    assert names(tmp_path / "out") == set()


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("detection", ("--every", "0"), "--every 0 is not allowed: 1 or more"),
        ("detection", ("--window", "16"), "--window 16 is not allowed: 32 or more"),
        ("segmentation", ("--overlap", "16"), "--overlap 16 needs the size of the windows: give --window, too"),
        ("segmentation", ("--window", "64", "--overlap", "33"), "--overlap 33 is not allowed: from 0 to 32, half the"),
        ("detection", ("--scales", "0", "1"), "--scales 0 1: different factors from 0.1 to 8"),
        ("classification", ("--window", "64"), "--window is not for classification models: leave it out"),
        ("classification", ("--flip",), "--flip is not for classification models: leave it out"),
    ],
)
def test_options_that_are_refused(
    runs: dict[str, Path],
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    task: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    assert message in refused(capsys, "predict", runs[task], clip, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_a_classifier_has_no_windows(runs: dict[str, Path]) -> None:
    predictor = Predictor.load(runs["classification"])
    with pytest.raises(ConfigError, match="windows are not for classification models: leave them out"):
        predictor.with_windows(64)
    assert predictor.with_windows(None) is predictor


def test_views_and_windows_of_predict_and_eval(
    runs: dict[str, Path], mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--scales", "1", "1.5", "--flip", "--window", "32", "--overlap", "8")
    run, image = runs["detection"], mixed / "clip.png"
    threshold = ("--score-threshold", "0", "--no-pictures", "--json")
    assert command("predict", run, image, "--out", tmp_path / "out", *options, *threshold) == 0
    (entry,) = json.loads(capsys.readouterr().out)["images"]
    several = Predictor.load(run).with_views((1.0, 1.5), flip=True).with_windows(32, 8)
    assert len(entry["objects"]) >= 5
    head = DetectionHead(head_convs=1, detections=5, score_threshold=0.0)
    card = ModelCard(**{**vars(several.card), "detection": head})
    expected = detected(several.described_as(card).predict(image))
    assert [each["score"] for each in entry["objects"]] == pytest.approx(expected.scores.tolist())
    data = _coco_data(tmp_path / "data", image)
    assert command("eval", run, "--data", data, *options, "--out", tmp_path / "scores", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["scales"], report["flip"], report["images"]) == ([1.0, 1.5], True, 1)
    assert command("eval", run, "--data", data, *options) == 0
    assert capsys.readouterr().out.splitlines()[1] == "top-scoring boxes of scales 1 1.5, each mirrored as well"


def _coco_data(root: Path, image: Path) -> Path:
    """The image as training and as validation data, with a box of each class."""
    boxes = [{"id": i + 1, "image_id": 1, "category_id": i + 1, "bbox": [5, 5, 20, 30], "iscrowd": 0} for i in range(2)]
    labels = {
        "images": [{"id": 1, "file_name": image.name, "height": 50, "width": 70}],
        "annotations": [{**box, "area": 600} for box in boxes],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
    }
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        (root / split / image.name).write_bytes(image.read_bytes())
        (root / f"{split}.json").write_text(json.dumps(labels))
    return root


def test_objects_of_masks_and_of_outlines_are_counted_and_measured(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    boxes = ("left", "top", "right", "bottom")
    wanted = {
        "segmentation": ["image", "class", "area", "centroid_x", "centroid_y", *boxes],
        "instance-segmentation": ["image", "class", "score", *boxes, "area", "centroid_x", "centroid_y"],
    }
    for task, columns in wanted.items():
        out = tmp_path / task
        assert command("predict", runs[task], tmp_path / "a.png", "--out", out, "--objects", "--json") == 0
        (entry,) = json.loads(capsys.readouterr().out)["images"]
        header, *rows = csv.reader((out / "objects.csv").read_text().splitlines())
        assert header == columns
        assert len(rows) == len(entry["objects"]) == sum(entry["counts"].values())
        areas = [int(row[columns.index("area")]) for row in rows]
        assert areas == [found["area"] for found in entry["objects"]]
        if task == "segmentation":
            assert sum(areas) == 48 * 64
    assert "--objects is not for detection models" in refused(
        capsys, "predict", runs["detection"], tmp_path / "a.png", "--out", tmp_path / "b", "--objects"
    )
