"""How much a mask changes where an image is seen in windows instead of whole, by window and overlap.

    python scripts/window_equality.py RUN IMAGE... --out results/windows.json

The network weighs its branches by means over what it sees, and near a border it sees less of the surroundings: both
differ between a window and the whole image. Windows and overlaps are in network pixels.
"""

import argparse
import shlex
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cyclemlp import Predictor
from cyclemlp.files import write_json
from cyclemlp.inference import network_image
from cyclemlp.machine import environment
from cyclemlp.tasks.segmentation.predict import SegmentationResult

WINDOWS, OVERLAPS = (256, 512, 1024), (32, 64, 128, 256)


def seen(predictor: Predictor, image: Path) -> SegmentationResult:
    """The mask of an image, with its probabilities."""
    result = predictor.predict(image, probabilities=True)
    assert isinstance(result, SegmentationResult)
    return result


def compare(predictor: Predictor, images: list[Path]) -> list[dict[str, Any]]:
    """For each window and overlap: pixels that get another class, and by how much probabilities differ."""
    network_image.MAX_WHOLE_PIXELS = sys.maxsize
    whole = [seen(predictor, image) for image in images]
    rows = []
    for window, overlap in product(WINDOWS, OVERLAPS):
        if overlap > window // 4:
            continue
        cut = predictor.with_windows(window, overlap)
        other = same = 0
        largest, total = 0.0, 0.0
        for image, expected in zip(images, whole, strict=True):
            found = seen(cut, image)
            assert found.probabilities is not None
            assert expected.probabilities is not None
            difference = np.abs(found.probabilities - expected.probabilities)
            other += int((found.mask != expected.mask).sum())
            same += int((found.mask == expected.mask).sum())
            largest, total = max(largest, float(difference.max())), total + float(difference.max(axis=0).sum())
        mean = total / (same + other)
        rows.append({"window": window, "overlap": overlap, "other_class": other / (same + other)}
                    | {"mean_difference": mean, "largest_difference": largest})  # fmt: skip
    return rows


def main() -> None:
    """Compare the images that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of a segmentation")
    parser.add_argument("images", type=Path, nargs="+", help="images that are larger than the windows")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    options = parser.parse_args()
    predictor = Predictor.load(options.run)
    command = shlex.join(["python", "scripts/window_equality.py", options.run.name, *(i.name for i in options.images)])
    card = predictor.card
    made = environment(command, torch.get_num_threads(), [])
    record = {"model": card.model, "head": card.head, "input_scale": card.input_scale, "images": len(options.images)}
    write_json(options.out, {**record, "rows": compare(predictor, options.images), "environment": made})


if __name__ == "__main__":
    main()
