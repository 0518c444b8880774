"""Pixels that are nodata or transparent count neither in loss nor in scores, and have no class in a result."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from predictions import detected, segmented

from cyclemlp.data.datasets import ClassifiedSplit
from cyclemlp.data.masks import MaskDataset, MaskSplit
from cyclemlp.data.objects import DetectionDataset, DetectionSplit, Record
from cyclemlp.errors import DataError
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.inference.evaluate import Evaluator
from cyclemlp.inference.inputs import Job
from cyclemlp.inference.predict_videos import predict_video
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard, build_model
from cyclemlp.tasks.detection.decoding import Detections
from cyclemlp.tasks.detection.predict import DetectionResult
from cyclemlp.tasks.options import PredictionOptions
from cyclemlp.tasks.registry import get_task

pytestmark = pytest.mark.usefixtures("one_thread")
EDGE, MISSING = 64, 20
BANDS = {
    "in_chans": 2,
    "mean": (0.5, 0.5),
    "std": (0.2, 0.2),
    "values": "fixed",
    "value_range": (0.0, 1.0),
    "bands": (1, 2),
    "file_bands": 2,
}
FINDER = DetectionHead(head_convs=1, score_threshold=0.0)


def predictor(task: str, head: str, **more: object) -> Predictor:
    torch.manual_seed(0)
    values = {**BANDS, **({} if task == "classification" else {"head_width": 16}), **more}
    card = ModelCard(task, "cyclemlp_nano", head, ("sea", "land"), **values)  # type: ignore[arg-type]
    return Predictor.of_model(build_model(card).eval(), card, "cpu")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Without numbers in its upper rows."""
    values = np.random.default_rng(0).random((EDGE, EDGE, 2)).astype(np.float32)
    values[:MISSING] = np.nan
    np.save(tmp_path / "a.npy", values)
    return tmp_path / "a.npy"


def test_masks(image: Path, tmp_path: Path) -> None:
    found = predictor("segmentation", "semantic-fpn")
    result = segmented(found.predict(image))
    assert (result.mask[:MISSING] == 255).all()
    assert (result.mask[MISSING:] < 2).all()
    described = result.to_dict()
    assert described["nodata_pixels"] == MISSING * EDGE
    assert sum(described["shares"].values()) == pytest.approx(1)
    result.class_image().save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), result.mask)
        assert (np.asarray(mask.convert("RGBA"))[:MISSING, :, 3] == 0).all()
        assert (np.asarray(mask.convert("RGBA"))[MISSING:, :, 3] == 255).all()
    drawn = np.asarray(result.draw(legend=False))
    np.testing.assert_array_equal(drawn[:MISSING, :, 0], result.image[:MISSING, :, 0])
    Image.fromarray(np.zeros((EDGE, EDGE), np.uint8)).save(tmp_path / "a.png")
    split = MaskSplit((image,), (tmp_path / "a.png",))
    counts = Evaluator(found.card, MaskDataset(tmp_path, ("sea", "land"), {"val": split}), "val").count_all(found)
    assert int(counts.counts.sum()) == (EDGE - MISSING) * EDGE  # type: ignore[attr-defined]


def record() -> Record:
    """An object that is not seen, and one that is, in part."""
    boxes = np.array([[5, 2, 25, 18], [5, 15, 30, 40]], np.float32)
    labels = np.array([0, 1])
    return Record(1, (EDGE, EDGE), boxes, labels, np.array([False, False]), np.array([320.0, 625.0]), (None, None))


def test_objects(image: Path, tmp_path: Path) -> None:
    found = predictor("detection", "retinanet", detection=FINDER)
    split = DetectionSplit((image,), (record(),), rule=found.card.pixel_rule)
    assert split.read(0)[1].crowd.tolist() == [True, False]
    result = detected(found.predict(image))
    assert len(result)
    assert (result.boxes[:, 3] > MISSING).all()
    dataset = DetectionDataset(tmp_path, ("sea", "land"), {"val": split})
    counts = get_task("detection").new_counts(found.card, dataset)
    right = Detections(record().boxes_xyxy[1:], np.ones(1, np.float32), np.array([1]))
    seen = DetectionResult(right, ("sea", "land"), result.image, valid=result.valid)
    get_task("detection").count(counts, dataset, "val", 0, seen)
    metrics = counts.metrics(("sea", "land"))
    assert metrics["AP"] == {"sea": None, "land": pytest.approx(1)}  # nothing is missed where nothing can be seen


def test_outlines_end_where_nothing_is_measured() -> None:
    valid = np.ones((EDGE, EDGE), np.bool_)
    valid[:MISSING] = False
    whole = np.ones((1, EDGE, EDGE), np.uint8)
    box = Detections(np.array([[0, 0, EDGE, EDGE]], np.float32), np.ones(1, np.float32), np.array([0]))
    result = DetectionResult(box, ("sea",), np.zeros((EDGE, EDGE, 3), np.uint8), whole, valid=valid)
    np.testing.assert_array_equal(result.mask(0), valid)
    assert result.to_dict()["objects"][0]["area"] == (EDGE - MISSING) * EDGE


def test_videos_are_refused_by_networks_on_other_bands_and_values() -> None:
    job, options = Job(Path("a.mp4"), {}), PredictionOptions()
    with pytest.raises(DataError, match=r"a\.mp4 is a video of RGB frames, but the model was trained on images of 2"):
        predict_video(predictor("segmentation", "semantic-fpn"), job, 1, options)
    rgb = {"in_chans": 3, "mean": (0.5,) * 3, "std": (0.2,) * 3, "bands": (), "file_bands": None}
    twelve_bits = predictor("segmentation", "semantic-fpn", **rgb, value_range=(0.0, 4095.0))
    with pytest.raises(DataError, match=r"a\.mp4 is a video of values 0 to 255, but the model's range is 0 to 4095"):
        predict_video(twelve_bits, job, 1, options)


def test_an_image_without_a_measured_pixel_has_no_class(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((EDGE, EDGE, 2), np.nan, np.float32))
    found = predictor("classification", "linear", image_size=EDGE, crop_pct=1.0)
    with pytest.raises(DataError, match=r"a\.npy: no pixel is measured: all are nodata or transparent"):
        found.predict(tmp_path / "a.npy")
    with pytest.raises(DataError, match=r"a\.npy has no measured pixel: all are nodata or transparent; remove it"):
        ClassifiedSplit((tmp_path / "a.npy",), (0,), found.card.pixel_rule).read(0)
