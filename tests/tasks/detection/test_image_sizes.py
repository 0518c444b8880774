"""The real detectors take images of any size, whole and in windows."""

import json

import numpy as np
import pytest
import torch
from predictions import detected

from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard, build_model

pytestmark = pytest.mark.usefixtures("one_thread")
TASKS = {"retinanet": "detection", "mask-rcnn": "instance-segmentation"}


@pytest.fixture(scope="module", params=TASKS)
def predictor(request: pytest.FixtureRequest) -> Predictor:
    torch.manual_seed(0)
    options = DetectionHead(head_convs=1, detections=10, candidates=50, score_threshold=0.0)
    task = TASKS[request.param]
    card = ModelCard(task, "cyclemlp_nano", request.param, ("a", "b"), head_width=8, detection=options)
    return Predictor.of_model(build_model(card), card, device="cpu")


@pytest.mark.parametrize(
    ("size", "window"), [((1, 1), None), ((17, 400), None), ((300, 200), None), ((801, 1333), None), ((300, 200), 160)]
)
def test_objects_lie_in_an_image_of_any_size(predictor: Predictor, size: tuple[int, int], window: int | None) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = detected(predictor.with_windows(window).predict(image))
    assert len(found) > 0
    assert found.boxes.min() >= 0
    assert (found.boxes.max(0) <= [size[1], size[0]] * 2).all()
    assert (np.diff(found.scores) <= 0).all()
    json.dumps([found.to_dict(), found.to_coco(1)])
    assert found.draw().size == (size[1], size[0])
