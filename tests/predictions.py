"""The results of single tasks, as tests read them: `Predictor.predict` returns the result of any task."""

from cyclemlp.tasks.base import Result
from cyclemlp.tasks.classification.predict import ClassificationResult
from cyclemlp.tasks.detection.predict import DetectionResult
from cyclemlp.tasks.segmentation.predict import SegmentationResult


def segmented(result: Result) -> SegmentationResult:
    """The result of a segmentation network."""
    assert isinstance(result, SegmentationResult)
    return result


def classified(result: Result) -> ClassificationResult:
    """The result of a classifier."""
    assert isinstance(result, ClassificationResult)
    return result


def detected(result: Result) -> DetectionResult:
    """The result of a detector, with masks where it is one for instance segmentation."""
    assert isinstance(result, DetectionResult)
    return result
