"""What can be done with found objects."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as reference_api

from cyclemlp.data.drawing import palette
from cyclemlp.data.outlines import parse_outline, whole_mask
from cyclemlp.tasks.detection.decoding import Detections
from cyclemlp.tasks.detection.predict import DetectionResult

BOXES = np.array([[2, 24, 22, 34], [30, 30, 40, 50]], dtype=np.float32)
SCORES, LABELS = np.array([0.75, 0.25], dtype=np.float32), np.array([1, 0])
CLASSES = ("cell", "speck")
ROOMY = np.full((80, 50, 3), 100, dtype=np.uint8)
"""An image where a name finds room below its box."""


def result(*, masks: bool = False) -> DetectionResult:
    probabilities = np.ones((2, 28, 28), dtype=np.float32) if masks else None
    if probabilities is not None:
        probabilities[1, :, 14:] = 0  # the left half of its box
    image = np.full((60, 50, 3), 100, dtype=np.uint8)
    return DetectionResult(Detections(BOXES, SCORES, LABELS, probabilities), CLASSES, image)


def test_boxes_as_json() -> None:
    found = result()
    assert (len(found), found.names, found.has_masks) == (2, ["speck", "cell"], False)
    assert json.loads(json.dumps(found.to_dict())) == {
        "task": "detection",
        "size": {"height": 60, "width": 50},
        "objects": [
            {"class": "speck", "score": 0.75, "box": [2.0, 24.0, 22.0, 34.0]},
            {"class": "cell", "score": 0.25, "box": [30.0, 30.0, 40.0, 50.0]},
        ],
    }
    with pytest.raises(ValueError, match="boxes without masks"):
        found.mask(0)


def test_masks_as_json_have_areas() -> None:
    found = result(masks=True)
    assert found.to_dict()["task"] == "instance-segmentation"
    assert [entry["area"] for entry in found.to_dict()["objects"]] == [20 * 10, 5 * 20]
    assert found.mask(0)[24:34, 2:22].all()
    assert found.mask(0).sum() == 200
    assert found.mask(1)[30:50, 30:35].all()


def test_in_cocos_form() -> None:
    plain = result().to_coco(17)
    assert plain[0] == {"image_id": 17, "category_id": 2, "bbox": [2.0, 24.0, 20.0, 10.0], "score": 0.75}
    first, second = result(masks=True).to_coco(17, category_ids=(30, 70))
    assert (first["category_id"], second["category_id"]) == (70, 30)
    assert reference_api.area(first["segmentation"]) == 200
    outline = parse_outline(second["segmentation"], (60, 50))
    assert np.array_equal(whole_mask(outline, (60, 50)), result(masks=True).mask(1))
    json.dumps(first)


def test_only_the_likely_ones() -> None:
    found = result(masks=True).above(0.5)
    assert found.names == ["speck"]
    assert found.mask(0).sum() == 200


def test_drawn_boxes_have_the_colour_of_their_class() -> None:
    colours = palette(2)
    drawn = np.asarray(replace(result(), image=ROOMY).draw())
    assert drawn.shape == (80, 50, 3)
    assert (drawn[33, 2:22] == colours[1]).all()  # lower edge: the name stands above the upper one
    assert (drawn[49, 30:40] == colours[0]).all()
    assert (drawn[32:50, 39] == colours[0]).all()
    assert (drawn[78, 5] == 100).all()


def test_drawn_masks_are_painted_half_way() -> None:
    drawn = np.asarray(replace(result(masks=True), image=ROOMY).draw(opacity=0.5)).astype(int)
    colour = palette(8)[1].astype(int)
    assert np.abs(drawn[40, 33] - (100 + colour) / 2).max() <= 1
    assert (drawn[40, 37] == 100).all()


def test_nothing_found_is_drawn_as_the_image() -> None:
    nothing = result().above(0.9)
    assert nothing.to_dict()["objects"] == []
    assert nothing.to_coco(1) == []
    assert (np.asarray(nothing.draw()) == 100).all()


def test_results_have_the_class_numbers_of_the_training_data() -> None:
    found = replace(result(), category_ids=(3, 7))
    assert [entry["category_id"] for entry in found.to_coco(0)] == [7, 3]
    assert [entry["category_id"] for entry in found.to_coco(0, (1, 2))] == [2, 1]
    assert [entry["category_id"] for entry in result().to_coco(0)] == [2, 1]
