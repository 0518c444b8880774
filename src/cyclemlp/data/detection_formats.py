"""Which format of object annotations a folder is in, recognised by looking; every format becomes the same records."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cyclemlp.data import coco
from cyclemlp.data.detection import DetectionDataset
from cyclemlp.data.detection_survey import Survey, finish
from cyclemlp.errors import DataError


class DetectionFormat(NamedTuple):
    """One way to write down boxes and outlines."""

    name: str
    layout: str
    """Where its files are, in words for a message."""
    recognises: Callable[[Path], bool]
    survey: Callable[[Path], Survey]


FORMATS = (DetectionFormat("coco", coco.LAYOUT, coco.is_coco_dataset, coco.survey_coco),)
"""In the order in which they are looked for."""


def find_detection_dataset(root: Path) -> DetectionDataset:
    """The data set in `root`, of whichever format; annotations are read and checked, pictures at most by their headers.

    Raises DataError for the first problem, with the number of further ones. Boxes that stand out are cut to the
    picture and boxes without area left out, with a line in the log.
    """
    return finish(survey_detection(root))


def survey_detection(root: Path) -> Survey:
    """What is in `root`, and what is wrong with it. Raises DataError where no format is recognised."""
    for known in FORMATS:
        if known.recognises(root):
            return known.survey(root)
    layouts = " or ".join(known.layout for known in FORMATS)
    raise DataError(f"{root} {'is no data set' if root.is_dir() else 'is no folder'}; expected {layouts}")
