"""How the objects of an image change where it is seen in windows instead of whole, by detector and window.

    python scripts/window_objects.py RUN... --images 12 --out results/window-objects.json
    python scripts/window_objects.py RUN... --drawn 3m --images 4 --out results/window-objects.json

Each run is a network for detection or instance segmentation; its validation images are used, the largest ones first.
With `--drawn` a Mask R-CNN is added that is trained for so long on images of ellipses that this script draws.

The ruler was fixed before anything was measured. Windows of 128, 256 and 384 network pixels share a fourth, which is
the default. Objects count from the score on from which they are shown. An object is the same where the boxes of one
class overlap by an IoU of 0.9, each once, the best overlaps first; of the same objects, the differences of the corners
of boxes and of scores are averaged, and with masks the IoU of the two masks.
"""

import argparse
import json
import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torchvision.ops import box_iou

import cyclemlp
from cyclemlp import Predictor
from cyclemlp.files import write_json
from cyclemlp.heads.detection_options import SHOWN_SCORE
from cyclemlp.inference import network_image
from cyclemlp.machine import environment
from cyclemlp.tasks.detection.predict import DetectionResult
from cyclemlp.training.run_folder import training_data

WINDOWS, SAME = (128, 256, 384), 0.9
EDGE, ELLIPSES, DRAWN = 512, 60, {"train": 24, "val": 6}
"""Edge of an image that is drawn, the ellipses in it, and the images of each split."""
CLASSES = ("dark", "bright")
Pairs = list[tuple[int, int]]


def draw_ellipses(root: Path) -> Path:
    """Images with noise and ellipses of two classes in COCO's form, with outlines."""
    draw = np.random.default_rng(0)
    for split, count in DRAWN.items():
        (root / split).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(1, count + 1):
            name = f"{number}.png"
            picture = Image.fromarray(draw.integers(90, 130, (EDGE, EDGE, 3), dtype=np.uint8))
            for _ in range(ELLIPSES):
                outline, label = ellipse(draw), int(draw.integers(2))
                ImageDraw.Draw(picture).polygon([*map(tuple, outline)], fill=((30, 60, 90), (220, 200, 160))[label])
                entry: dict[str, Any] = {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "iscrowd": 0,
                }
                entry |= {"segmentation": [outline.reshape(-1).tolist()], "area": float(np.ptp(outline, axis=0).prod())}
                left, top = outline.min(axis=0).tolist()
                annotations.append(entry | {"bbox": [left, top, *np.ptp(outline, axis=0).tolist()]})
            picture.save(root / split / name)
            images.append({"id": number, "file_name": name, "height": EDGE, "width": EDGE})
        categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


def ellipse(draw: np.random.Generator) -> npt.NDArray[np.float64]:
    """(24, 2): the outline of an ellipse of 8 to 40 pixels that lies in the image."""
    radii, turn = draw.uniform(4, 20, 2), draw.uniform(0, np.pi)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii
    turned = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    placed: npt.NDArray[np.float64] = turned + draw.uniform(20, EDGE - 20, 2)
    return placed


def trained(folder: Path, time: str) -> Path:
    """A Mask R-CNN that was trained for so long on the images that are drawn."""
    data = draw_ellipses(folder / "ellipses")
    run = cyclemlp.train("instance-segmentation", data=data, out=folder / "mask-rcnn", max_time=time, fit=True)
    return Path(run)


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
    paths = predictor.task.find_evaluation_data(data, "val", predictor.card).splits["val"].images
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
    masks: list[float] = []
    for expected, result in zip(whole, found, strict=True):
        for one, other in pairs(expected, result):
            boxes.append(np.abs(expected.boxes[one] - result.boxes[other]))
            scores.append(abs(float(expected.detections.scores[one] - result.detections.scores[other])))
            if expected.has_masks:
                masks.append(overlap(expected.mask(one), result.mask(other)))
    total, own = sum(map(len, whole)), sum(map(len, found))
    return {
        "whole": total,
        "kept": len(boxes) / max(1, total),
        "added": (own - len(boxes)) / max(1, own),
        "box_difference": float(np.mean(boxes)) if boxes else 0.0,
        "score_difference": float(np.mean(scores)) if scores else 0.0,
        **({"mask_iou": float(np.mean(masks))} if masks else {}),
    }


def overlap(some: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """The IoU of two masks; 1 for two without a pixel."""
    union = int((some | other).sum())
    return int((some & other).sum()) / union if union else 1.0


def main() -> None:
    """Compare the runs that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="run folders of detectors")
    parser.add_argument("--drawn", metavar="TIME", help="train a Mask R-CNN for this time, such as 3m, on drawn images")
    parser.add_argument("--images", type=int, default=12, help="validation images of each run, the largest")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    options = parser.parse_args()
    if not options.runs and options.drawn is None:
        parser.error("name run folders, or give --drawn 3m")
    network_image.MAX_WHOLE_PIXELS = sys.maxsize
    names = [run.name for run in options.runs]
    drawn = [] if options.drawn is None else ["--drawn", options.drawn]
    command = ["python", "scripts/window_objects.py", *names, *drawn, "--images", str(options.images)]
    command += ["--out", f"results/{options.out.name}"]
    made = environment(shlex.join(command), torch.get_num_threads(), [])
    with tempfile.TemporaryDirectory() as folder:
        runs = [*options.runs, *([] if options.drawn is None else [trained(Path(folder), options.drawn)])]
        found = [compare(run, options.images) for run in runs]
    write_json(options.out, {"detectors": found, "environment": made})


if __name__ == "__main__":
    main()
