"""Whether an exported file gives the network's values: several sizes and batches, in the runtime itself."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cyclemlp.errors import ConfigError
from cyclemlp.export.program import RawNetwork
from cyclemlp.files import JsonObject
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.heads.network import FloatArray, Network
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.detection.decoding import Detections, decode

LIMIT = 1e-4
"""Largest difference allowed, as a share of the largest value of the same output."""

SIZES = ((64, 64), (97, 131), (160, 96), (320, 256))
"""Heights and widths tried; networks that take others are given the next larger they take."""
BATCHES = (1, 2, 3)
BOX_LIMIT = 0.1
"""Pixels."""
ROUNDED_SHARE = 0.01
"""Of the objects, that may be kept or dropped otherwise: at a threshold it is a matter of rounding."""


@dataclass(frozen=True)
class Difference:
    """Between file and network, for one output and one batch of random images."""

    output: str
    batch: int
    height: int
    width: int
    max_abs: float
    """Largest absolute difference."""
    max_rel: float
    """The same as a share of the output's largest absolute value, which is what the limit is for."""


def differences(model: nn.Module, raw: RawNetwork, network: Network) -> list[Difference]:
    """How `network`, which runs the file, differs from `model`, which the file was made from."""
    found = []
    sizes = SIZES[:1] if raw.fixed_size is not None else SIZES
    for size, batch in product(sizes, BATCHES[:1] if raw.decodes else BATCHES):
        images = raw.example(batch, *size)
        height, width = images.shape[2:]  # the network may take larger ones only
        with torch.inference_mode():
            given = model(images)
        wanted = [output.numpy() for output in ((given,) if isinstance(given, Tensor) else given)]
        outputs = network(images.numpy())
        if raw.decodes:
            check_decoding(raw.facts.card, outputs, (height, width))
        for name, ours, theirs in zip(raw.facts.outputs[-len(wanted) :], wanted, outputs[-len(wanted) :], strict=True):
            if ours.shape != theirs.shape:
                raise ConfigError(f"the exported file gives {name} of shape {theirs.shape}, the network {ours.shape}")
            max_abs = float(np.abs(ours - theirs).max())
            max_rel = max_abs / max(float(np.abs(ours).max()), 1e-12)
            found.append(Difference(name, batch, height, width, max_abs, max_rel))
    return found


def check_decoding(card: ModelCard, outputs: Sequence[FloatArray], size: tuple[int, int]) -> None:
    """Raise ConfigError where boxes, scores and labels are not what the raw outputs that follow them say."""
    boxes, scores, labels, logits, offsets = outputs
    wanted = decode(logits[0], offsets[0], card.detection or DetectionHead(), size)
    found = Detections(boxes, scores, labels.astype(np.int64))
    count = len(wanted.scores)
    least = (1 - ROUNDED_SHARE) * count
    if len(found.scores) < least or len(found.scores) * (1 - ROUNDED_SHARE) > count or shared(found, wanted) < least:
        raise ConfigError(
            f"the exported file finds other objects than its raw outputs say, for {size[0]} x {size[1]}: nothing was"
            " written; export with --raw"
        )


def shared(found: Detections, wanted: Detections) -> int:
    """How many of the wanted objects are found: with their class, within 0.1 pixel and a score of 0.0001."""
    if not len(found.scores):
        return 0
    apart = np.abs(found.boxes_xyxy - wanted.boxes_xyxy[:, None]).max(axis=2) < BOX_LIMIT
    apart &= np.abs(found.scores - wanted.scores[:, None]) < LIMIT
    apart &= found.labels == wanted.labels[:, None]
    return int(apart.any(axis=1).sum())


def check(found: list[Difference], limit: float, what: str) -> None:
    """Raise ConfigError where a difference is above the limit or not a number."""
    worst = max(found, key=lambda each: np.inf if np.isnan(each.max_rel) else each.max_rel)
    if not worst.max_rel <= limit:
        raise ConfigError(
            f"the {what} file differs from the network by {worst.max_abs:.1e}, {worst.max_rel:.1e} of the largest"
            f" value, for {worst.batch} x {worst.height} x {worst.width}; the limit is {limit:g}: nothing was written;"
            " choose another --format, or a larger --limit"
        )


def as_report(found: list[Difference], limit: float) -> JsonObject:
    """For the report next to the file."""
    return {
        "limit": limit,
        "max_abs": max(each.max_abs for each in found),
        "max_rel": max(each.max_rel for each in found),
        "trials": [asdict(each) for each in found],
    }


def report_path(path: Path) -> Path:
    """`NAME.report.json` next to the exported file."""
    return path.with_name(f"{path.stem}.report.json")
