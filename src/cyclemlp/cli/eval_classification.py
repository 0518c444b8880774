"""`cyclemlp eval` of classifiers."""

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclemlp.cli.eval import EvaluationOptions, score_lines
from cyclemlp.errors import ConfigError
from cyclemlp.files import atomic_write, write_text
from cyclemlp.tasks.scores import MOST_CLASSES_LISTED

if TYPE_CHECKING:
    import numpy.typing as npt

    from cyclemlp.inference.predictor import Predictor
    from cyclemlp.tasks.classification.result import ClassificationResult

OPTIONS = ("crop", "image_size")
PICTURE_NAME = "confusion.png"
WRONG_NAME = "wrong.csv"
MOST_PAIRS = 5
"""Pairs of classes that the table names as most confused."""


def evaluate(predictor: "Predictor", options: EvaluationOptions) -> dict[str, Any]:
    """Scores over all images of the split; with `out` the confusion matrix and the images that were wrong."""
    from cyclemlp.data.formats.class_folders import read_split
    from cyclemlp.inference.evaluate import evaluate_classification
    from cyclemlp.tasks.classification.metrics import most_confused

    predictor = _seen_as(predictor, options)
    card = predictor.card
    split = read_split(options.data, options.split, card.classes)
    wrong: list[Wrong] = []

    def note(image: Path, label: int, found: "ClassificationResult") -> None:
        if found.label != card.classes[label]:
            wrong.append((image, card.classes[label], found))

    counts = evaluate_classification(predictor, split, note)
    report = {
        "images": len(split.images),
        "metrics": counts.metrics(card.classes),
        "most_confused": most_confused(counts.confusion, card.classes, MOST_PAIRS),
        "image_size": card.image_size,
        "crop": card.crop_pct,
    }
    files = {} if options.out is None else _write(options.out, counts.confusion.numpy(), card.classes, wrong)
    return report | files


def table(report: Mapping[str, Any]) -> list[str]:
    """Accuracy of each class, top-1 and top-5, and the classes most often taken for one another."""
    metrics = report["metrics"]
    classes = list(metrics["accuracy"].items())
    rows = classes if len(classes) <= MOST_CLASSES_LISTED else []
    rows = [*rows, ("top-1", metrics["top1"])] + ([("top-5", metrics["top5"])] if metrics["top5"] is not None else [])
    lines = [f"images of {report['image_size']} pixels, crop {report['crop']:g}", *score_lines(rows, "accuracy")]
    return lines + [f"{count} of {name} taken for {other}" for name, other, count in report["most_confused"]]


Wrong = tuple[Path, str, "ClassificationResult"]
"""An image, its class, and what it was taken for."""


def _seen_as(predictor: "Predictor", options: EvaluationOptions) -> "Predictor":
    """The predictor, seeing images at another crop or size where one was asked for. Raises ConfigError."""
    if options.crop is not None and not 0 < options.crop <= 1:
        raise ConfigError(f"--crop {options.crop:g} is not allowed: above 0 to 1; 0.875 is the authors'")
    card = predictor.card
    if options.image_size is not None and options.image_size != card.image_size:
        from cyclemlp.models.classifiers import check_other_size

        check_other_size(card.model, card.image_size or 0, options.image_size)
    seen = replace(card, crop_pct=options.crop or card.crop_pct, image_size=options.image_size or card.image_size)
    return predictor.described_as(seen)


def _write(out: Path, confusion: "npt.NDArray[Any]", classes: tuple[str, ...], wrong: list[Wrong]) -> dict[str, str]:
    from cyclemlp.tasks.classification.confusion import draw_confusion, write_confusion

    table = write_confusion(out, confusion, classes)
    with atomic_write(out / PICTURE_NAME) as part:
        buffer = io.BytesIO()
        draw_confusion(confusion, classes).savefig(buffer, format="png", dpi=150)
        part.write_bytes(buffer.getbuffer())
    write_text(out / WRONG_NAME, _wrong_table(wrong))
    return {"confusion": str(table), "confusion_picture": str(out / PICTURE_NAME), "wrong": str(out / WRONG_NAME)}


def _wrong_table(wrong: list[Wrong]) -> str:
    """The surest mistakes first: among them are wrong labels."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["image", "class", "taken_for", "probability"])
    for image, label, found in sorted(wrong, key=lambda entry: -float(entry[2].probabilities.max())):
        writer.writerow([image, label, found.label, f"{found.probabilities.max():.4f}"])
    return buffer.getvalue()
