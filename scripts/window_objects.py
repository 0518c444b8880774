"""How the objects of an image change where it is seen in windows instead of whole, by detector and window.

    python scripts/window_objects.py RUN... --images 12 --out results/window-objects.json

Each run is a network for detection or instance segmentation; its validation images are used, the largest ones first.
An object is the same where boxes of one class overlap by an IoU of 0.9. Windows share a fourth, which is the default.
"""

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.ops import box_iou

from cyclemlp import Predictor
from cyclemlp.files import write_json
from cyclemlp.heads.detection_options import SHOWN_SCORE
from cyclemlp.inference import network_image
from cyclemlp.machine import environment
from cyclemlp.tasks.detection.predict import DetectionResult
from cyclemlp.training.run_folder import training_data

WINDOWS, SAME = (128, 256, 384), 0.9
Pairs = list[tuple[int, int]]


def seen(predictor: Predictor, image: Path) -> DetectionResult:
    """The objects of an image with a score from which on they are shown."""
    result = predictor.predict(image)
    assert isinstance(result, DetectionResult)
    shown = predictor.card.shown_score or SHOWN_SCORE
    return replace(result, detections=result.detections.select(result.detections.scores >= shown))


def pairs(first: DetectionResult, second: DetectionResult) -> Pairs:
    """Numbers of objects that are in both, each once, the best overlaps first."""
    overlaps = box_iou(*(torch.from_numpy(np.asarray(each.boxes, np.float32)) for each in (first, second))).numpy()
    same = first.detections.labels[:, None] == second.detections.labels
    taken: Pairs = []
    for one, other in np.argwhere((overlaps >= SAME) & same)[np.argsort(-overlaps[(overlaps >= SAME) & same])].tolist():
        if all(one != a and other != b for a, b in taken):
            taken.append((one, other))
    return taken


def compare(run: Path, count: int) -> dict[str, Any]:
    """For each window the share of objects in both, and how their boxes and scores differ."""
    predictor, data = Predictor.load(run), training_data(run)
    paths = predictor.task.find_dataset(data).splits["val"].images
    images = sorted(paths, key=lambda path: (-Image.open(path).size[0] * Image.open(path).size[1], path.name))[:count]
    whole = [seen(predictor, image) for image in images]
    rows = []
    for window in WINDOWS:
        found = [seen(predictor.with_windows(window, window // 4), image) for image in images]
        rows.append({"window": window, "overlap": window // 4, **differences(whole, found)})
    card = predictor.card
    return {"model": card.model, "head": card.head, "data": data.name, "images": len(images), "rows": rows}


def differences(whole: list[DetectionResult], found: list[DetectionResult]) -> dict[str, Any]:
    """Over all images."""
    boxes: list[npt.NDArray[Any]] = []
    scores: list[float] = []
    for expected, result in zip(whole, found, strict=True):
        for one, other in pairs(expected, result):
            boxes.append(np.abs(expected.boxes[one] - result.boxes[other]))
            scores.append(abs(float(expected.detections.scores[one] - result.detections.scores[other])))
    total, own = sum(map(len, whole)), sum(map(len, found))
    return {
        "whole": total,
        "kept": len(boxes) / max(1, total),
        "added": (own - len(boxes)) / max(1, own),
        "box_difference": float(np.mean(boxes)) if boxes else 0.0,
        "score_difference": float(np.mean(scores)) if scores else 0.0,
    }


def main() -> None:
    """Compare the runs that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of detectors")
    parser.add_argument("--images", type=int, default=12, help="validation images of each run, the largest")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    options = parser.parse_args()
    network_image.MAX_WHOLE_PIXELS = sys.maxsize
    names = [run.name for run in options.runs]
    command = ["python", "scripts/window_objects.py", *names, "--images", str(options.images)]
    command += ["--out", f"results/{options.out.name}"]
    made = environment(shlex.join(command), torch.get_num_threads(), [])
    write_json(options.out, {"detectors": [compare(run, options.images) for run in options.runs], "environment": made})


if __name__ == "__main__":
    main()
