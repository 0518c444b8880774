"""Scores of a predictor on a labelled split, counted exactly over whole images."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from cyclemlp.data.labels import ClassifiedSplit
from cyclemlp.data.masks import MaskSplit
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.classification.result import ClassificationResult

if TYPE_CHECKING:
    from cyclemlp.tasks.classification.metrics import LabelCounts
    from cyclemlp.tasks.segmentation.metrics import ConfusionMatrix, SegmentationMetrics


def evaluate_segmentation(predictor: Predictor, split: MaskSplit) -> "SegmentationMetrics":
    """IoU per class, mIoU and pixel accuracy over all pixels of `split`, with a progress bar.

    Raises DataError, naming the file, for an unreadable image or mask, a mask of another size than its image,
    and a mask value that is no class; ConfigError where torch is not installed. No image is ever skipped.
    """
    try:
        from cyclemlp.tasks.segmentation.metrics import ConfusionMatrix
    except ModuleNotFoundError as error:
        raise ConfigError(f"scores are counted by {error.name}, which is not installed: pip install torch") from error

    classes = predictor.card.classes
    confusion = ConfusionMatrix(len(classes))
    for index in tqdm(range(len(split.images)), unit="img", desc="evaluate", disable=None, leave=False):
        _count(confusion, predictor, split, index)
    return confusion.metrics(classes)


NoteResult = Callable[[Path, int, ClassificationResult], None]
"""Is told of every image: its path, its class, and what it was taken for."""


def evaluate_classification(
    predictor: Predictor, split: ClassifiedSplit, note: NoteResult | None = None
) -> "LabelCounts":
    """Which class every image of `split` was taken for, with a progress bar; `metrics(classes)` are the scores.

    Raises DataError for an unreadable image, ConfigError where torch is not installed. No image is ever skipped.
    """
    try:
        import torch

        from cyclemlp.tasks.classification.metrics import LabelCounts
    except ModuleNotFoundError as error:
        raise ConfigError(f"scores are counted by {error.name}, which is not installed: pip install torch") from error

    counts = LabelCounts(len(predictor.card.classes))
    pairs = list(zip(split.images, split.labels, strict=True))
    for image, label in tqdm(pairs, unit="img", desc="evaluate", disable=None, leave=False):
        found = predictor.predict(image)
        counts.update(torch.from_numpy(found.probabilities)[None], torch.tensor([label]))
        if note is not None:
            note(image, label, found)
    return counts


def _count(confusion: "ConfusionMatrix", predictor: Predictor, split: MaskSplit, index: int) -> None:
    import torch

    image, mask, target = split.images[index], split.masks[index], split.target(index)
    prediction = predictor.predict(image, progress=True).mask
    if target.shape != prediction.shape:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (target.shape, prediction.shape)]
        raise DataError(f"{mask} is {sizes[0]} pixels, its image {image.name} {sizes[1]}: make them equal")
    try:
        confusion.update(torch.from_numpy(prediction), torch.from_numpy(target))
    except DataError as error:
        raise DataError(f"{mask}: {error}") from error
