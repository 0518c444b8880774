"""A classification run from data to report."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cyclemlp.tasks.classification.config import ClassificationConfig

if TYPE_CHECKING:
    from PIL import Image

    from cyclemlp.data.labels import ClassifiedSplit
    from cyclemlp.inference.predictor import Predictor
    from cyclemlp.tasks.classification.metrics import LabelCounts

REPORT_PICTURES = 12


def train_and_report(run: ClassificationConfig) -> Mapping[str, Any]:
    """Train, evaluate on all validation images and write report.html; returns the metrics.

    Raises as `train_classification` does.
    """
    from cyclemlp.data.formats.registry import find_dataset
    from cyclemlp.data.labels import ClassifiedDataset
    from cyclemlp.inference.evaluate import evaluate_classification
    from cyclemlp.inference.predictor import Predictor
    from cyclemlp.tasks.classification.confusion import draw_confusion, write_confusion
    from cyclemlp.tasks.classification.train import train_classification
    from cyclemlp.training.report import write_report

    counted: list[LabelCounts] = []

    def evaluate(run_dir: Path) -> Mapping[str, Any]:
        predictor = Predictor.load(run_dir, run.machine.device)
        counted.append(evaluate_classification(predictor, split))
        return cast("Mapping[str, Any]", counted[0].metrics(predictor.card.classes))

    split = find_dataset(run.data, ClassifiedDataset).splits["val"]
    run_dir = train_classification(run, evaluate=evaluate)
    predictor = Predictor.load(run_dir, run.machine.device)
    classes, confusion = predictor.card.classes, counted[0].confusion.numpy()
    write_confusion(run_dir, confusion, classes)
    figures = [("Confusion matrix", draw_confusion(confusion, classes))]
    write_report(run_dir, _pictures(predictor, split), figures)
    return predictor.card.metrics


def _pictures(predictor: "Predictor", split: "ClassifiedSplit") -> "list[tuple[str, Image.Image]]":
    """Validation images spread over the split, each with its prediction."""
    from cyclemlp.data.sampling import evenly_spaced

    pictures = []
    for path in evenly_spaced(split.images, REPORT_PICTURES):
        picture = predictor.predict(path).draw()
        pictures.append((f"{path.parent.name}/{path.name}", picture))
    return pictures
