"""A small data set for segmentation."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], dtype=np.uint8)


def write_mask_folder(root: Path, train: int = 6, val: int = 2, edge: int = 40) -> Path:
    """Coloured checkers whose colour is the class, with noise."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:edge, :edge]
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            mask = ((rows // (5 + i) + columns // 9) % 3).astype(np.uint8)
            image = (0.7 * COLOURS[mask] + random.integers(0, 70, (edge, edge, 3))).astype(np.uint8)
            for kind, pixels in (("images", image), ("masks", mask)):
                folder = root / kind / split
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    (root / "classes.txt").write_text("red\ngreen\nblue\n", encoding="utf-8")
    return root
