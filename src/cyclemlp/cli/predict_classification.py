"""`cyclemlp predict` of classifiers: one table of all images, and a picture of each."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclemlp.cli.jobs import Job
from cyclemlp.cli.predict import PredictionOptions, write_png
from cyclemlp.files import write_json, write_text

if TYPE_CHECKING:
    from cyclemlp.inference.predictor import Predictor
    from cyclemlp.tasks.classification.result import ClassificationResult

OPTIONS = ("no_pictures",)
COCO = False
TABLE_NAME, JSON_NAME = "predictions.csv", "predictions.json"
PICTURE = "picture"


def prepare(predictor: "Predictor", _options: PredictionOptions) -> "Predictor":
    """As it is."""
    return predictor


def endings(options: PredictionOptions) -> Mapping[str, str]:
    """A picture for each image, unless none is wanted."""
    return {} if options.no_pictures else {PICTURE: "_label.png"}


def told(result: "ClassificationResult") -> dict[str, Any]:
    """Size, label and the likeliest classes."""
    summary = result.to_dict()
    return {"size": summary["size"], "label": summary["label"], "top5": summary["top5"]}


def write(result: "ClassificationResult", job: Job) -> dict[str, Any]:
    """Write the picture."""
    if PICTURE in job.files:
        write_png(job.files[PICTURE], result.draw())
    return told(result)


def columns(_classes: Sequence[str]) -> Sequence[str]:
    """The likeliest class."""
    return ("label", "probability")


def rows(entry: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
    """One row."""
    return [[entry["label"], f"{entry['top5'][entry['label']]:.6f}"]]


def line(entry: Mapping[str, Any]) -> str:
    """The likeliest classes."""
    shares = ", ".join(f"{name} {share * 100:.1f} %" for name, share in entry["top5"].items())
    return f"{shares} -> {entry[PICTURE]}" if PICTURE in entry else shares


def finish(out: Path, entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Write predictions.csv, a row for each image, and predictions.json."""
    places = max(len(entry["top5"]) for entry in entries)
    further = [name for place in range(2, places + 1) for name in (f"label_{place}", f"probability_{place}")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["image", "label", "probability", *further])
    for entry in entries:
        cells = [cell for name, share in entry["top5"].items() for cell in (name, f"{share:.6f}")]
        writer.writerow([entry["image"], *cells])
    write_text(out / TABLE_NAME, buffer.getvalue())
    write_json(out / JSON_NAME, {"task": "classification", "images": list(entries)})
    return {"table": str(out / TABLE_NAME), "predictions": str(out / JSON_NAME)}
