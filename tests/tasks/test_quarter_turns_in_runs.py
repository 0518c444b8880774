"""Each task chooses --rotate90 from its training images, and keeps it with the run."""

import json
from pathlib import Path

import numpy as np
import tifffile
import yaml
from command_line import command
from mask_folders import write_mask_folder
from PIL import Image

from cyclemlp.tasks.build_config import build_config
from cyclemlp.tasks.options import flat
from cyclemlp.tasks.registry import get_task


def as_microscopes_have_them(root: Path) -> None:
    for path in [*root.rglob("images/**/*.png"), *root.rglob("photos/**/*.png")]:
        tifffile.imwrite(path.with_suffix(".tif"), np.array(Image.open(path)), imagej=True)
        path.unlink()


def test_segmentation(tmp_path: Path) -> None:
    data, out = write_mask_folder(tmp_path / "data", 2, 1), tmp_path / "run"
    as_microscopes_have_them(data)
    quick = ["--steps", "1", "--batch-size", "2", "--crop-size", "32", "--workers", "0", "--device", "cpu"]
    assert command("train", "segmentation", "--data", data, "--out", out, *quick) == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["rotate90"] == 0.75
    assert command("train", "segmentation", "--resume", "--out", out, "--steps", "2") == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["rotate90"] == 0.75


def resolved(task: str, data: Path) -> object:
    config = build_config(task, {"data": str(data)})
    return flat(get_task(task).resolve(config, get_task(task).find_training_data(config)))["rotate90"]


def test_classification(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number, name in enumerate(("a", "b")):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 32), (number, len(split), 0)).save(tmp_path / "photos" / split / name / "1.png")
    assert resolved("classification", tmp_path / "photos") == 0.0
    as_microscopes_have_them(tmp_path)
    assert resolved("classification", tmp_path / "photos") == 0.75


def test_detectors(tmp_path: Path) -> None:
    corners = [4, 4, 28, 4, 28, 28, 4, 28]
    found = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 24, 24], "segmentation": [corners], "area": 576}
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        tifffile.imwrite(tmp_path / split / "1.tif", np.zeros((64, 64), np.uint8), imagej=True)
        images = [{"id": 1, "file_name": "1.tif", "width": 64, "height": 64}]
        content = {"images": images, "annotations": [found | {"iscrowd": 0}], "categories": [{"id": 1, "name": "cell"}]}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    assert resolved("detection", tmp_path) == 0.75
    assert resolved("instance-segmentation", tmp_path) == 0.75
