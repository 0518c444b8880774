"""`cyclemlp demo` of instance segmentation: the sample of detection, with outlines."""

from cyclemlp.cli.demo_detection import DATA, START, draw, prepare, table, train_and_report

__all__ = ["DATA", "RECIPE", "START", "draw", "prepare", "table", "train_and_report"]

RECIPE = "sample-instance-segmentation"
