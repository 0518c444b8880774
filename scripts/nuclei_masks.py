"""Turn an instance segmentation data set in COCO form into class masks: pixels of any instance against the rest.

    python scripts/nuclei_masks.py DSB2018_FOLDER --out nuclei-masks
    cyclemlp train segmentation --data nuclei-masks

The images are stored again as RGB without loss. With --tile EDGE those of training are cut into equal parts of at
most that edge, so that large ones are met more often than small ones; those of validation stay whole. With --brighten
the values of every image, of both splits, are multiplied so that their percentile 99.8 becomes white: exposures of
fluorescence differ tenfold.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

CLASSES = ("background", "nucleus")
WHITE = 99.8
"""Percentile of an image's values, over all its colours, that becomes white."""


def main() -> None:
    """Read the folder named on the command line and write `images/`, `masks/` and `classes.txt`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train.json, val.json, train/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="folder for images and masks, new or empty")
    parser.add_argument("--tile", type=int, help="largest edge of a training image, 64 or more pixels")
    parser.add_argument("--brighten", action="store_true", help="make the brightest values of each image white")
    options = parser.parse_args()
    if options.tile is not None and options.tile < 64:
        parser.error(f"--tile {options.tile} is too small: 64 or more")
    if options.out.exists() and any(options.out.iterdir()):
        parser.error(f"--out {options.out} is not empty: choose another folder")
    for split, tile in (("train", options.tile), ("val", None)):
        _convert(options.data, split, options.out, tile, brighten=options.brighten)
    (options.out / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")


def _convert(data: Path, split: str, out: Path, tile: int | None, *, brighten: bool) -> None:
    annotations = json.loads((data / f"{split}.json").read_text(encoding="utf-8"))
    outlines: dict[int, list[Any]] = defaultdict(list)
    for annotation in annotations["annotations"]:
        outlines[annotation["image_id"]].append(annotation["segmentation"])
    for kind in ("images", "masks"):
        (out / kind / split).mkdir(parents=True)
    for entry in annotations["images"]:
        with Image.open(data / split / entry["file_name"]) as image:
            pixels = np.asarray(image.convert("RGB"))
        if brighten:
            pixels = _brightened(pixels)
        mask = np.zeros((entry["height"], entry["width"]), dtype=np.uint8)
        for outline in outlines[entry["id"]]:
            mask |= coco_mask.decode(outline)
        for kind, whole in (("images", pixels), ("masks", mask)):
            for place, part in _parts(whole, tile):
                Image.fromarray(part).save(out / kind / split / f"{Path(entry['file_name']).stem}{place}.png")


def _brightened(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The same image with its brightest values white; black stays black."""
    white = max(1.0, np.percentile(pixels, WHITE))
    brighter: npt.NDArray[np.uint8] = (pixels * (255 / white)).clip(0, 255).round().astype(np.uint8)
    return brighter


def _parts(pixels: npt.NDArray[np.uint8], tile: int | None) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Equal parts with a name for their place; one without a name where nothing is cut."""
    rows, columns = (1 if tile is None else -(-edge // tile) for edge in pixels.shape[:2])
    for row, strip in enumerate(np.array_split(pixels, rows, axis=0)):
        for column, part in enumerate(np.array_split(strip, columns, axis=1)):
            yield ("" if rows == columns == 1 else f"-{row}{column}"), part


if __name__ == "__main__":
    main()
