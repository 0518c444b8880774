"""`cyclemlp demo` of instance segmentation: the sample of detection, with outlines."""

from cyclemlp.cli.demo_detection import DATA, draw, prepare, table, train_and_report

__all__ = ["DATA", "RECIPE", "draw", "prepare", "table", "train_and_report"]

RECIPE = "sample-instance-segmentation"
