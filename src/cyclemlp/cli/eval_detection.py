"""`cyclemlp eval` of detectors: average precision by COCO's rules."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cyclemlp.cli.eval import EvaluationOptions, listed, score_lines, seen_as
from cyclemlp.errors import DataError, did_you_mean
from cyclemlp.files import write_text
from cyclemlp.tasks.scores import SCORES

if TYPE_CHECKING:
    from cyclemlp.inference.predictor import Predictor

OPTIONS = ("scales", "flip", "window", "overlap")
RESULTS_NAME = "coco_results.json"
LABELS_NAME = "coco_labels.json"


def evaluate(predictor: "Predictor", options: EvaluationOptions) -> dict[str, Any]:
    """Scores over all images of the split; with `out` what was found, in COCO's results format.

    For data of another format also the labels in COCO's form, which the results number their images by.
    """
    from cyclemlp.data.formats.registry import find_dataset
    from cyclemlp.data.objects import DetectionDataset, as_coco
    from cyclemlp.inference.evaluate_detection import evaluate_detection

    dataset, classes = find_dataset(options.data, DetectionDataset), predictor.card.classes
    if options.split not in dataset.splits:
        near = did_you_mean(options.split, dataset.splits)
        raise DataError(f"{options.data} has no split {options.split!r}; it has {', '.join(dataset.splits)}.{near}")
    if dataset.classes != classes:
        theirs, ours = listed(dataset.classes), listed(classes)
        raise DataError(f"{options.data} has {theirs}, but the model was trained on {ours}: choose other --data")
    split = dataset.splits[options.split]
    predictor = predictor.with_views(options.scales or (1.0,), flip=options.flip)
    predictor = predictor.with_windows(options.window, options.overlap)
    seen = {} if predictor.views.plain else predictor.views.to_dict()
    counts = evaluate_detection(predictor, split, dataset.category_ids)
    report: dict[str, Any] = {
        "images": len(split.images),
        **seen,
        "most_detections": counts.most,
        "metrics": counts.metrics(classes, dataset.category_ids),
    }
    if options.out is None:
        return report
    write_text(options.out / RESULTS_NAME, json.dumps(counts.results) + "\n")
    report["coco_results"] = str(options.out / RESULTS_NAME)
    if split.annotations is None:
        write_text(options.out / LABELS_NAME, json.dumps(as_coco(dataset, options.split)) + "\n")
        report["coco_labels"] = str(options.out / LABELS_NAME)
    return report


def table(report: Mapping[str, Any]) -> list[str]:
    """Average precision of each class, over all, at single overlaps, and by size; first how images were seen."""
    names, metrics = SCORES[report["task"]], report["metrics"]
    rows = [*metrics[names.per_class].items(), *((name, metrics[name]) for name in (names.main, *names.further))]
    counted = f"at most {report['most_detections']} objects an image count"
    return [*seen_as(report, "likeliest boxes of"), counted, *score_lines(rows, names.per_class)]
