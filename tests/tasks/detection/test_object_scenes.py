"""Objects of scenes: those of the same image in memory, whole across windows, in the coordinates of the map."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from square_finder import SquareFinder, card, drawn_squares

from cyclemlp.cli import main
from cyclemlp.errors import ConfigError
from cyclemlp.inference import predict_scenes
from cyclemlp.inference.predict_files import predict_files
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.detection.decoding import Detections
from cyclemlp.tasks.detection.predict import DetectionResult, merged
from cyclemlp.tasks.detection.scenes import kept_of_all
from cyclemlp.tasks.options import PredictionOptions

UTM, STEP = "EPSG:32633", 10.0
CARD = replace(card(window=64), overlap=24, shown_score=0.1)


def write_scene(path: Path, values: np.ndarray, **more: Any) -> Path:
    """(height, width, bands) as a GeoTIFF of 10 metres a pixel."""
    height, width, bands = values.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": values.dtype, "crs": UTM}
    place = rasterio.Affine(STEP, 0, 5e5, 0, -STEP, 5.4e6)
    with rasterio.open(path, "w", transform=place, **profile, **more) as target:
        target.write(np.moveaxis(values, -1, 0))
    return path


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(SquareFinder(), CARD)


@pytest.mark.parametrize("suffix", ["gpkg", "geojson"])
def test_outlines_lie_where_the_objects_lie(suffix: Any, predictor: Predictor, tmp_path: Path) -> None:
    image = drawn_squares(300, 280)
    scene = write_scene(tmp_path / "scene.tif", image)
    (entry,) = predict_files(predictor, [scene], tmp_path / "out", PredictionOptions(vector=suffix)).images
    whole = predictor.with_options(PredictionOptions(score_threshold=0.1)).predict(image)
    assert isinstance(whole, DetectionResult)
    expected = whole.above(0.1)
    assert len(expected) > 10
    by_box = {tuple(found["box"]): found for found in expected.to_dict()["objects"]}
    assert {tuple(found["box"]): found for found in entry["objects"]} == by_box
    assert [found["score"] for found in entry["objects"]] == sorted((f["score"] for f in by_box.values()), reverse=True)
    info, _, encoded, (names, numbers, scores, areas, metres) = pyogrio.raw.read(entry["vector"])
    assert info["crs"] == {"gpkg": UTM, "geojson": "EPSG:4326"}[suffix]
    assert list(areas) == list(metres)
    assert sorted(areas) == sorted(found["area"] * STEP**2 for found in by_box.values())
    assert {(name, number) for name, number in zip(names, numbers, strict=True)} == {("grey", 0), ("white", 1)}
    assert sorted(scores) == pytest.approx(sorted(found["score"] for found in by_box.values()))
    if suffix == "gpkg":
        bounds = {shapely.from_wkb(shape).bounds for shape in encoded}
        for left, top, right, bottom in by_box:
            middle = left + round((right - left) / 2 - 0.01)  # masks are the left half
            near = [b for b in bounds if b[0] == 5e5 + STEP * left and b[3] == 5.4e6 - STEP * top]
            assert near
            assert near[0][1] == 5.4e6 - STEP * bottom
            assert abs((near[0][2] - 5e5) / STEP - middle) <= 1
    assert len(entry["coco"]) == len(entry["objects"])


def test_boxes_and_missing_pixels(tmp_path: Path) -> None:
    image = drawn_squares(300, 280)
    boxes_only = Predictor(SquareFinder(), replace(CARD, task="detection", head="retinanet"))
    scene = write_scene(tmp_path / "scene.tif", image)
    gone = np.full((*image.shape[:2], 1), 255, np.uint8)
    gone[:100] = 0
    clear = write_scene(tmp_path / "clear.tif", np.concatenate([image, gone], axis=2), photometric="RGB", alpha="YES")
    whole, part = predict_files(boxes_only, [scene, clear], tmp_path / "out", PredictionOptions()).images
    assert whole["task"] == "detection"
    lower = [found for found in whole["objects"] if found["box"][3] > 100]
    assert part["objects"] == lower
    assert 0 < len(lower) < len(whole["objects"])
    collection = json.loads(Path(whole["vector"]).read_text())
    longitude, latitude = collection["features"][0]["geometry"]["coordinates"][0][0]
    assert (longitude, latitude) == (pytest.approx(15, abs=0.1), pytest.approx(48.75, abs=0.1))
    table = (tmp_path / "out" / "objects.csv").read_text().splitlines()
    assert len(table) == 1 + len(whole["objects"]) + len(part["objects"])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**32), st.floats(0.05, 0.9))
def test_merging_is_that_of_an_image(count: int, seed: int, nms: float) -> None:
    draw = np.random.default_rng(seed)
    corners, sizes = draw.integers(0, 40, (count, 2)), draw.integers(1, 20, (count, 2))
    boxes = np.concatenate([corners, corners + sizes], axis=1).astype(np.float32)
    scores, labels = (draw.integers(1, 9, count) / 10).astype(np.float32), draw.integers(0, 2, count)
    found, cut = Detections(boxes, scores, labels), draw.random(count) < 0.3
    expected = merged(replace(found), cut, nms, count)
    ours = found.select(kept_of_all(found, cut, nms))
    rows = [
        sorted(map(tuple, np.column_stack([each.boxes_xyxy, each.scores, each.labels]))) for each in (ours, expected)
    ]
    assert rows[0] == rows[1]


def test_an_interrupted_scene_goes_on(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, out = write_scene(tmp_path / "scene.tif", drawn_squares(300, 280)), tmp_path / "out"
    add = predict_scenes.Strips.add
    added: list[int] = []

    def stopping(self: predict_scenes.Strips, arrays: Any) -> None:
        if len(added) == 2:
            raise KeyboardInterrupt
        add(self, arrays)
        added.append(len(arrays))

    with monkeypatch.context() as patch:
        patch.setattr(predict_scenes.Strips, "add", stopping)
        with pytest.raises(KeyboardInterrupt):
            predict_files(predictor, [scene], out, PredictionOptions())
    assert not (out / "scene_objects.geojson").exists()
    resumed = predict_files(predictor, [scene], out, PredictionOptions(), resume=True).images[0]
    fresh = predict_files(predictor, [scene], tmp_path / "fresh", PredictionOptions()).images[0]
    assert resumed["objects"] == fresh["objects"]


def test_what_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", drawn_squares(100, 100))
    for options, words in (
        (PredictionOptions(objects=True), "--objects is not for scenes"),
        (PredictionOptions(flip=True), "in one view"),
        (PredictionOptions(probabilities=True), "--probabilities is not for instance-segmentation"),
    ):
        with pytest.raises(ConfigError, match=words):
            predict_files(predictor, [scene], tmp_path / "out", options)


PAGE = Path(__file__).parents[3] / "docs" / "scenes.md"


def test_the_command_of_the_page(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = re.findall(r"^ {4}cyclemlp (predict DETECTOR .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path / "scene.tif", drawn_squares(100, 100))
    monkeypatch.setattr(Predictor, "load", lambda *_: predictor)
    with pytest.raises(SystemExit) as left:
        main(line.split())
    assert left.value.code in (0, None)
    assert (tmp_path / "predicted" / "scene_objects.gpkg").is_file()
