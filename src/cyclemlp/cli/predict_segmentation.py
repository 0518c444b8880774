"""`cyclemlp predict` of segmentation models: a mask and an overlay for each image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cyclemlp.cli.jobs import Job
from cyclemlp.cli.predict import PredictionOptions, write_png

if TYPE_CHECKING:
    from cyclemlp.inference.predictor import Predictor
    from cyclemlp.tasks.segmentation.result import SegmentationResult

OPTIONS = ("scales", "flip", "window", "overlap")
COCO = False
_ENDINGS = MappingProxyType({"mask": "_mask.png", "overlay": "_overlay.png"})


def prepare(predictor: "Predictor", options: PredictionOptions) -> "Predictor":
    """The predictor with the views and windows asked for."""
    predictor = predictor.with_views(options.scales or (1.0,), flip=options.flip)
    return predictor.with_windows(options.window, options.overlap)


def endings(_options: PredictionOptions) -> Mapping[str, str]:
    """Two files for each image."""
    return _ENDINGS


def told(result: "SegmentationResult") -> dict[str, Any]:
    """Size and the share of each class."""
    summary = result.to_dict()
    return {"size": summary["size"], "shares": summary["shares"]}


def write(result: "SegmentationResult", job: Job) -> dict[str, Any]:
    """Write mask and overlay."""
    write_png(job.files["mask"], result.class_image())
    write_png(job.files["overlay"], result.draw())
    return told(result)


def columns(classes: Sequence[str]) -> Sequence[str]:
    """A column for the share of each class."""
    return classes


def rows(entry: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
    """One row."""
    return [[f"{share:.6f}" for share in entry["shares"].values()]]


def line(entry: Mapping[str, Any]) -> str:
    """The classes with the largest shares."""
    largest = sorted(entry["shares"].items(), key=lambda item: -item[1])[:5]
    shares = ", ".join(f"{name} {share * 100:.1f} %" for name, share in largest if share)
    return f"{shares} -> {entry['overlay']}"


def finish(_out: Path, _entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Nothing: each image has its own files."""
    return {}
