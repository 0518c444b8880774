"""Scores of a predictor on images whose objects are labelled, by COCO's rules."""

from collections.abc import Sequence

from tqdm import tqdm

from cyclemlp.data.objects import DetectionSplit
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.detection.metrics import DetectionCounts


def evaluate_detection(
    predictor: Predictor, split: DetectionSplit, category_ids: Sequence[int] | None = None
) -> DetectionCounts:
    """What was found in every image of `split`, with a progress bar; `metrics(classes)` are the scores.

    `category_ids` are those of the classes in `results`, by default 1, 2, ... Raises DataError for an unreadable
    image; none is ever skipped.
    """
    card = predictor.card
    counts = DetectionCounts(masks=card.task == "instance-segmentation", most=(card.detection or DetectionHead()).kept)
    numbers = category_ids or range(1, len(card.classes) + 1)
    pairs = list(zip(split.images, split.records, strict=True))
    for image, record in tqdm(pairs, unit="img", desc="evaluate", disable=None, leave=False):
        counts.add(record, predictor.predict(image).detections, numbers)
    return counts
