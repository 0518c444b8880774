"""Whether an exported file gives the network's values: several sizes and batches, in the runtime itself."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cyclemlp.errors import ConfigError
from cyclemlp.export.program import RawNetwork
from cyclemlp.export.verify_objects import check_objects
from cyclemlp.files import JsonObject
from cyclemlp.heads.decoded_mask_rcnn import PLACE_NAMES
from cyclemlp.heads.mask_rcnn import MaskRCNN
from cyclemlp.heads.network import FloatArray, Network

LIMIT = 1e-4
"""Largest difference allowed, as a share of the largest value of the same output."""

SIZES = ((64, 64), (97, 131), (160, 96), (320, 256))
"""Heights and widths tried; networks that take others are given the next larger they take."""
BATCHES = (1, 2, 3)


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
    for size, batch in product(sizes, BATCHES[:1] if raw.objects else BATCHES):
        images = raw.example(batch, *size)
        height, width = images.shape[2:]  # the network may take larger ones only
        outputs = dict(zip(raw.facts.outputs, network(images.numpy()), strict=True))
        with torch.inference_mode():
            wanted = _wanted(model, raw, images, outputs)
            if raw.objects:
                check_objects(model, raw.facts.card, outputs, (height, width))
        for name, ours in wanted.items():
            theirs = outputs[name]
            if ours.shape != theirs.shape:
                raise ConfigError(f"the exported file gives {name} of shape {theirs.shape}, the network {ours.shape}")
            max_abs = float(np.abs(ours - theirs).max())
            max_rel = max_abs / max(float(np.abs(ours).max()), 1e-12)
            found.append(Difference(name, batch, height, width, max_abs, max_rel))
    return found


def _wanted(
    model: nn.Module, raw: RawNetwork, images: Tensor, outputs: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """The raw outputs by name, as `model` has them; of Mask R-CNN for the regions that the file chose."""
    if isinstance(model, MaskRCNN):
        given = model.values(images, *(torch.from_numpy(outputs[name]) for name in PLACE_NAMES))
        return {name: output.numpy() for name, output in zip(model.value_names, given, strict=True)}
    given = model(images)
    listed = (given,) if isinstance(given, Tensor) else given
    names = raw.facts.outputs[len(raw.objects) :]
    return {name: output.numpy() for name, output in zip(names, listed, strict=True)}


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
