"""`cyclemlp eval` of detectors with masks; the scores of masks and boxes follow from the model's task."""

from cyclemlp.cli.eval_detection import OPTIONS, evaluate, table

__all__ = ["OPTIONS", "evaluate", "table"]
