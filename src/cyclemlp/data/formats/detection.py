"""Which format of object annotations a folder is in, recognised by looking; every format becomes the same records."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cyclemlp.data.detection import DetectionDataset
from cyclemlp.data.detection_survey import Survey, finish
from cyclemlp.data.formats import coco, voc, yolo
from cyclemlp.errors import DataError


class DetectionFormat(NamedTuple):
    """One way to write down boxes and outlines."""

    name: str
    layout: str
    """Where its files are, in words for a message."""
    recognises: Callable[[Path], bool]
    survey: Callable[[Path], Survey]


FORMATS = (
    DetectionFormat("coco", coco.LAYOUT, coco.is_coco_dataset, coco.survey_coco),
    DetectionFormat("voc", voc.LAYOUT, voc.is_voc_dataset, voc.survey_voc),
    DetectionFormat("yolo", yolo.LAYOUT, yolo.is_yolo_dataset, yolo.survey_yolo),
)
"""In the order in which they are looked for."""


def find_detection_dataset(root: Path) -> DetectionDataset:
    """The data set in `root`, of whichever format; annotations are read and checked, pictures at most by their headers.

    Raises DataError for the first problem, with the number of further ones. Boxes that stand out are cut to the
    picture and boxes without area left out, with a line in the log.
    """
    return finish(survey_detection(root))


def survey_detection(root: Path) -> Survey:
    """What is in `root`, and what is wrong with it. Raises DataError where no format is recognised."""
    known = _format_of(root)
    if known is not None:
        return known.survey(root)
    if not root.is_dir():
        raise DataError(f"{root} is no folder; expected one with {_layouts()}")
    inner = (path for path in (*root.glob("*/"), *root.glob("VOCdevkit/*/")) if _format_of(path))
    if (nested := next(inner, None)) is not None:
        raise DataError(f"{root} is no data set with boxes, but {nested} is one: give that")
    raise DataError(f"{root} is no data set with boxes; expected {_layouts()}")


def _format_of(root: Path) -> DetectionFormat | None:
    return next((known for known in FORMATS if known.recognises(root)), None)


def _layouts() -> str:
    return ", or ".join(known.layout for known in FORMATS)
