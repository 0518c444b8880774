"""`cyclemlp predict` of segmentation models: a mask and an overlay for each image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cyclemlp.cli.predict import Job, PredictionOptions, write_png

if TYPE_CHECKING:
    from cyclemlp.inference.predictor import Predictor
    from cyclemlp.inference.results import SegmentationResult

OPTIONS = ("scales", "flip")
_ENDINGS = MappingProxyType({"mask": "_mask.png", "overlay": "_overlay.png"})


def prepare(predictor: "Predictor", options: PredictionOptions) -> "Predictor":
    """The predictor with the views asked for."""
    return predictor.with_views(options.scales or (1.0,), flip=options.flip)


def endings(_options: PredictionOptions) -> Mapping[str, str]:
    """Two files for each image."""
    return _ENDINGS


def write(result: "SegmentationResult", job: Job) -> dict[str, Any]:
    """Write mask and overlay; returns size and the share of each class."""
    write_png(job.files["mask"], result.class_image())
    write_png(job.files["overlay"], result.draw())
    summary = result.to_dict()
    return {"size": summary["size"], "shares": summary["shares"]}


def line(entry: Mapping[str, Any]) -> str:
    """The classes with the largest shares."""
    largest = sorted(entry["shares"].items(), key=lambda item: -item[1])[:5]
    shares = ", ".join(f"{name} {share * 100:.1f} %" for name, share in largest if share)
    return f"{shares} -> {entry['overlay']}"


def finish(_out: Path, _entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Nothing: each image has its own files."""
    return {}
