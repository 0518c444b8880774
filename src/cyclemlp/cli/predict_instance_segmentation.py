"""`cyclemlp predict` of detectors with masks; pictures and COCO results have them where the model gives them."""

from cyclemlp.cli.predict_detection import OPTIONS, endings, finish, line, prepare, write

__all__ = ["OPTIONS", "endings", "finish", "line", "prepare", "write"]
