"""`cyclemlp predict` of detectors with masks; pictures and COCO results have them where the model gives them."""

from cyclemlp.cli.predict_detection import COCO, OPTIONS, columns, endings, finish, line, prepare, rows, told, write

__all__ = ["COCO", "OPTIONS", "columns", "endings", "finish", "line", "prepare", "rows", "told", "write"]
