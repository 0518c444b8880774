"""One step of training and the scores after it, from boxes as PASCAL VOC and as YOLO have them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from training_runs import train_detection

from cyclemlp import api
from cyclemlp.tasks.card import read_card
from cyclemlp.tasks.detection.config import DetectionConfig, DetectionOptimisation
from cyclemlp.tasks.options import Length, Machine

VOC = (
    "<annotation><object><name>boat</name><bndbox><xmin>9</xmin><ymin>9</ymin>"
    "<xmax>40</xmax><ymax>40</ymax></bndbox></object></annotation>"
)


@pytest.mark.parametrize("kind", ["voc", "yolo"])
def test_a_step_of_training(kind: str, tmp_path: Path) -> None:
    data = tmp_path / "boats"
    for split in ("train", "val"):
        folder, labels = (data / split,) * 2 if kind == "voc" else (data / "images" / split, data / "labels" / split)
        for path in (folder, labels):
            path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(folder / "a.png")
        (labels / ("a.xml" if kind == "voc" else "a.txt")).write_text(VOC if kind == "voc" else "0 .375 .375 .5 .5")
    if kind == "yolo":
        (data / "classes.txt").write_text("boat\n")
    config = DetectionConfig(
        data=data,
        out=tmp_path / "run",
        model="cyclemlp_nano",
        head_width=32,
        length=Length(steps=1),
        optimisation=DetectionOptimisation(batch_size=1),
        machine=Machine(device="cpu", workers=0),
    )
    run = train_detection(config)
    assert read_card(run).classes == ("boat",)
    report = api.evaluate(run, data=data, out=tmp_path, device="cpu")
    assert report["images"] == 1
    labels_in_coco = json.loads(Path(report["coco_labels"]).read_text())
    assert [item["bbox"] for item in labels_in_coco["annotations"]] == [[8, 8, 32, 32]]
    labels = COCO(report["coco_labels"])  # the reference tool takes both files as they are
    assert labels.getCatIds() == [1]
    results = json.loads(Path(report["coco_results"]).read_text())
    assert all(each["category_id"] == 1 for each in results)
