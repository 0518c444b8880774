"""What makes a mask differ between windows and the whole image: the means of the re-weighting, or the borders.

    python scripts/window_statistics.py --steps 80 --out results/window-statistics.json

Each head of segmentation is trained briefly on the Earth (ocean and land), then sees images of a held-out band whole
and in windows. In windows the means over positions, by which a block weighs its branches, are those of the window,
those of the whole image at the size of a window (one cheap pass before), or those of the whole image. The last row of
each head is `--exact`, where borders are those of the image, too.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from cyclemlp import Predictor
from cyclemlp.data.samples.blue_marble import read_earth, read_earth_mask
from cyclemlp.files import write_json
from cyclemlp.heads.network import SizeRule
from cyclemlp.heads.streamed import maps
from cyclemlp.inference import network_image
from cyclemlp.inference.runtimes.torch import TorchNetwork
from cyclemlp.machine import environment
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.segmentation.predict import SegmentationResult
from cyclemlp.tasks.segmentation.train import network_of

HEADS, WINDOWS, EDGE, CROP, BATCH, IMAGES = ("semantic-fpn", "upernet"), (64, 128), 256, 64, 6, 4
Source = Literal["window", "reduced", "whole", "exact"]
Pixels = npt.NDArray[np.uint8]


class Means:
    """The means that the blocks of a network weigh their branches by: recorded, or replaced by recorded ones."""

    def __init__(self, model: nn.Module) -> None:
        found = (getattr(module, "reweight", None) for module in model.modules())
        self._found = [module for module in found if isinstance(module, nn.Module)]
        if not self._found:
            raise ValueError("the network has no re-weighting")

    @contextmanager
    def recorded(self, kept: dict[int, Tensor]) -> Iterator[None]:
        """Keep those of one pass in `kept`, by block."""

        def hook(number: int) -> Any:
            return lambda _module, given: kept.update({number: given[0]})

        with self._hooked(hook):
            yield

    @contextmanager
    def given(self, kept: dict[int, Tensor]) -> Iterator[None]:
        """Use these in place of a pass's own."""

        def hook(number: int) -> Any:
            return lambda _module, own: (kept[number].expand_as(own[0]),)

        with self._hooked(hook):
            yield

    @contextmanager
    def _hooked(self, hook: Any) -> Iterator[None]:
        handles = [module.register_forward_pre_hook(hook(number)) for number, module in enumerate(self._found)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def setting_of(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """A constant of a module with another value."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@cache
def earth() -> tuple[Pixels, Pixels]:
    """The image, and its mask of ocean and land."""
    return read_earth(), np.minimum(read_earth_mask(), 1)


def trained(head: str, steps: int) -> tuple[nn.Module, ModelCard]:
    """A network that tells ocean from land, after some steps on random crops of the bands of training."""
    torch.manual_seed(0)
    card = ModelCard("segmentation", "cyclemlp_nano", head, ("ocean", "land"), head_width=48)
    model, (image, mask) = network_of(card).train(), earth()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    draw = np.random.default_rng(0)
    for _ in range(steps):
        places = [(draw.integers(300, 2300 - CROP), 540 + draw.integers(0, 2160 - CROP)) for _ in range(BATCH)]
        crops = np.stack([image[y : y + CROP, x : x + CROP] for y, x in places]).transpose(0, 3, 1, 2)
        targets = torch.from_numpy(np.stack([mask[y : y + CROP, x : x + CROP] for y, x in places])).long()
        loss = nn.functional.cross_entropy(model(torch.from_numpy(card.normalised(crops.astype(np.float32)))), targets)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return model.eval(), card


def seen(predictor: Predictor, image: Pixels) -> SegmentationResult:
    """The mask of an image, with its probabilities."""
    result = predictor.predict(image, probabilities=True)
    assert isinstance(result, SegmentationResult)
    return result


def probable(result: SegmentationResult) -> npt.NDArray[np.float32]:
    """The probabilities that `seen` asked for."""
    assert result.probabilities is not None
    return result.probabilities


def in_windows(
    predictor: Predictor, means: Means, image: Pixels, window: int | None, source: Source
) -> SegmentationResult:
    """An image in windows, with the means of this source; block by block without a window."""
    if window is None:
        with setting_of(network_image, "MAX_WHOLE_PIXELS", 0):
            return seen(predictor.with_exact(), image)
    cut, kept = predictor.with_windows(window, window // 4), dict[int, Tensor]()
    if source == "window":
        return seen(cut, image)
    small = np.asarray(Image.fromarray(image).resize((window, window), Image.Resampling.BILINEAR))
    with means.recorded(kept):
        seen(predictor, small if source == "reduced" else image)
    with means.given(kept):
        return seen(cut, image)


def compare(head: str, steps: int) -> Iterator[dict[str, Any]]:
    """For each window and source of the means: how the result differs from that of the whole image."""
    model, card = trained(head, steps)
    predictor, means = Predictor(TorchNetwork(model, torch.device("cpu"), SizeRule(1)), card), Means(model)
    images = [earth()[0][top : top + EDGE, :EDGE] for top in np.linspace(300, 2300 - EDGE, IMAGES).astype(int)]
    whole = [seen(predictor, np.ascontiguousarray(image)) for image in images]
    for window in (*WINDOWS, None):
        sources: tuple[Source, ...] = ("window", "reduced", "whole") if window else ("exact",)
        for source in sources:
            found = [in_windows(predictor, means, np.ascontiguousarray(each), window, source) for each in images]
            pairs = list(zip(found, whole, strict=True))
            differences = np.stack([np.abs(probable(a) - probable(b)).max(axis=0) for a, b in pairs])
            yield {
                "head": head,
                "window": window,
                "means_of": source,
                "other_class": float(np.mean([a.mask != b.mask for a, b in pairs])),
                "mean_difference": float(differences.mean()),
                "largest_difference": float(differences.max()),
            }


def main() -> None:
    """Measure every head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=80, help="training steps of each network")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    options = parser.parse_args()
    network_image.MAX_WHOLE_PIXELS = sys.maxsize
    maps.TILE_VALUES = 2**12  # several windows for each map of these small images
    network_image.EXACT_ROWS = 64
    command = shlex.join(["python", "scripts/window_statistics.py", *sys.argv[1:-1], f"results/{options.out.name}"])
    made = environment(command, torch.get_num_threads(), [])
    rows = [row for head in HEADS for row in compare(head, options.steps)]
    record = {"model": "cyclemlp_nano", "steps": options.steps, "images": IMAGES, "edge": EDGE}
    write_json(options.out, {**record, "rows": rows, "environment": made})


if __name__ == "__main__":
    main()
