"""`cyclemlp predict` of detectors: a picture of each image, and what was found in all as JSON, COCO results and CSV."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclemlp.cli.jobs import Job
from cyclemlp.cli.predict import PredictionOptions, write_png
from cyclemlp.files import write_text
from cyclemlp.heads.detection_options import DetectionHead

if TYPE_CHECKING:
    from cyclemlp.inference.predictor import Predictor
    from cyclemlp.tasks.detection.predict import DetectionResult

OPTIONS = ("no_pictures", "score_threshold", "nms", "scales", "flip", "window", "overlap")
COCO = True
COLUMNS = ("class", "score", "left", "top", "right", "bottom")
OBJECTS_NAME, RESULTS_NAME, TABLE_NAME = "objects.json", "coco_results.json", "objects.csv"
SHOWN_SCORE = 0.3
"""Objects of lower scores are left out unless --score-threshold says otherwise."""
PICTURE = "overlay"


def prepare(predictor: "Predictor", options: PredictionOptions) -> "Predictor":
    """The predictor with the thresholds, views and windows asked for."""
    head = predictor.card.detection or DetectionHead()
    least = SHOWN_SCORE if options.score_threshold is None else options.score_threshold
    head = replace(head, score_threshold=least, nms=head.nms if options.nms is None else options.nms)
    predictor = predictor.described_as(replace(predictor.card, detection=head))
    predictor = predictor.with_views(options.scales or (1.0,), flip=options.flip)
    return predictor.with_windows(options.window, options.overlap)


def endings(options: PredictionOptions) -> Mapping[str, str]:
    """A picture for each image, unless none is wanted."""
    return {} if options.no_pictures else {PICTURE: "_overlay.png"}


def told(result: "DetectionResult") -> dict[str, Any]:
    """Size, objects, and the same as COCO has them."""
    summary = result.to_dict()
    coco = [{key: entry[key] for key in entry if key != "image_id"} for entry in result.to_coco(0)]
    return {"size": summary["size"], "objects": summary["objects"], "coco": coco}


def write(result: "DetectionResult", job: Job) -> dict[str, Any]:
    """Write the picture."""
    if PICTURE in job.files:
        write_png(job.files[PICTURE], result.draw())
    return told(result)


def columns(_classes: Sequence[str]) -> Sequence[str]:
    """Those of the table of images, too, behind the image's name."""
    return COLUMNS


def rows(entry: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
    """A row for each object."""
    return [[found["class"], f"{found['score']:.4f}", *found["box"]] for found in entry["objects"]]


def line(entry: Mapping[str, Any]) -> str:
    """How many objects of each class."""
    names = [found["class"] for found in entry["objects"]]
    counts = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names)) or "nothing"
    return f"{counts} -> {entry[PICTURE]}" if PICTURE in entry else counts


def finish(out: Path, entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Write objects.json, objects.csv and coco_results.json; image ids are 1, 2, ... in the order given."""
    objects, results = [], []
    for number, entry in enumerate(entries, start=1):
        objects.append({"id": number, **{key: value for key, value in entry.items() if key != "coco"}})
        results += [{"image_id": number, **found} for found in entry["coco"]]
    write_text(out / OBJECTS_NAME, json.dumps(objects, indent=1) + "\n")
    write_text(out / RESULTS_NAME, json.dumps(results) + "\n")
    write_text(out / TABLE_NAME, _csv(entries))
    files = {"objects": OBJECTS_NAME, "coco_results": RESULTS_NAME, "table": TABLE_NAME}
    return {kind: str(out / name) for kind, name in files.items()}


def _csv(entries: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["image", *COLUMNS])
    for entry in entries:
        writer.writerows([entry["image"], *row] for row in rows(entry))
    return buffer.getvalue()
