"""An installation without extras predicts masks, boxes and outlines from a run folder, and boxes from an ONNX file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.version import Version
from PIL import Image
from predictions import detected, segmented

from cyclemlp.export.run import export_run
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard, build_model, save_model

HEADS = {"segmentation": "semantic-fpn", "detection": "retinanet", "instance-segmentation": "mask-rcnn"}
EXTRAS = ("faster_coco_eval", "pycocotools", "lightning", "matplotlib", "tensorboard", "av", "openvino")
SCRIPT = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
from cyclemlp.cli import main

image, *sources = sys.argv[1:]
for source in sources:
    try:
        main(["predict", source, image, "--out", source + "-out"])
    except SystemExit as end:
        assert end.code in (0, None), source
"""


def save_run(folder: Path, task: str) -> Path:
    torch.manual_seed(0)
    options = DetectionHead(head_convs=1, head_norm="group", score_threshold=0.2, candidates=20)
    card = ModelCard(task, "resnet18", HEADS[task], ("sea", "land"), head_width=16, detection=options)
    model = build_model(card)
    for name, parameter in model.named_parameters():
        if name.endswith("cls_logits.bias"):  # so that an untrained detector finds something
            torch.nn.init.zeros_(parameter)
    save_model(folder, model, card)
    return folder


@pytest.mark.skipif(
    Version(torch.__version__) < Version("2.9"), reason="torch 2.8 does not export a detector's decoding"
)
def test_the_predict_command_works_without_extras(tmp_path: Path) -> None:
    sources = [save_run(tmp_path / task, task) for task in HEADS]
    sources.append(tmp_path / "boxes.onnx")  # for masks from one, see tests/export
    export_run(tmp_path / "detection", sources[-1], "onnx")
    image = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    arguments = [str(path) for path in (tmp_path / "a.png", *sources)]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for source in sources:
        out, wanted = source.with_name(f"{source.name}-out"), Predictor.load(source, "cpu").predict(image)
        if wanted.to_dict()["task"] == "segmentation":
            assert np.array_equal(np.asarray(Image.open(out / "a_mask.png")), segmented(wanted).mask)
            continue
        found = json.loads((out / "coco_results.json").read_text())
        expected = detected(wanted).to_coco(1)
        # Two processes may add in other orders, as the addresses of their arrays are.
        assert [each["category_id"] for each in found] == [each["category_id"] for each in expected]
        for name, close in (("bbox", 1e-3), ("score", 1e-5)):
            ours, theirs = (np.array([each[name] for each in objects]) for objects in (found, expected))
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=close)
        assert len(found) > 0
        assert ("segmentation" in found[0]) == (source.name == "instance-segmentation")
