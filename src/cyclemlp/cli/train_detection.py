"""A detection or instance segmentation run from data to report."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclemlp.tasks.detection.config import DetectionConfig

if TYPE_CHECKING:
    from PIL import Image

    from cyclemlp.data.objects import DetectionSplit
    from cyclemlp.inference.predictor import Predictor

REPORT_PICTURES = 6
SHOWN_SCORE = 0.3
"""Boxes of lower scores are left out of the report's pictures; the scores count them."""


def train_and_report(run: DetectionConfig) -> Mapping[str, Any]:
    """Train, evaluate on all validation images and write report.html; returns the metrics.

    Raises as `train_detection` does.
    """
    from cyclemlp.data.formats.registry import find_dataset
    from cyclemlp.data.objects import DetectionDataset
    from cyclemlp.inference.evaluate_detection import evaluate_detection
    from cyclemlp.inference.predictor import Predictor
    from cyclemlp.tasks.detection.train import train_detection
    from cyclemlp.training.report import write_report

    def evaluate(run_dir: Path) -> Mapping[str, Any]:
        predictor = Predictor.load(run_dir, run.machine.device)
        return evaluate_detection(predictor, split).metrics(predictor.card.classes)

    split = find_dataset(run.data, DetectionDataset).splits["val"]
    run_dir = train_detection(run, evaluate=evaluate)
    predictor = Predictor.load(run_dir, run.machine.device)
    write_report(run_dir, _pictures(predictor, split))
    return predictor.card.metrics


def _pictures(predictor: "Predictor", split: "DetectionSplit") -> "list[tuple[str, Image.Image]]":
    """Validation images spread over the split: what was found on the left, the labels on the right."""
    import numpy as np
    from PIL import Image

    from cyclemlp.data.sampling import evenly_spaced
    from cyclemlp.tasks.detection.predict import labelled

    pictures = []
    for index in evenly_spaced(range(len(split.images)), REPORT_PICTURES):
        found = predictor.predict(split.images[index]).above(SHOWN_SCORE)
        wanted = labelled(split.records[index], found.classes, found.image)
        both = np.concatenate([np.asarray(found.draw()), np.asarray(wanted.draw(scores=False))], axis=1)
        pictures.append((split.images[index].name, Image.fromarray(both)))
    return pictures
