"""Cut tiles with no, one and several nuclei out of an instance segmentation data set, as class folders.

Made for DSB2018 in COCO form: its images differ much in staining and brightness, so that colours alone do not tell how
many nuclei there are, and a classifier has to see shapes.

    python scripts/nuclei_tiles.py DSB2018_FOLDER --out nuclei-tiles
    cyclemlp train classification --data nuclei-tiles

A nucleus counts for the tile that holds at least half of it. Of tiles whose pixels are all equal (black ones, say) the
first is kept, so that none is in both splits. All classes of a split get as many tiles as the rarest has.
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

from cyclemlp.data.sampling import evenly_spaced

CLASSES = ("none", "one", "several")
LEAST_PIXELS = 20
"""Nuclei smaller than this are specks at the edge of an image and count for no tile."""

Pixels = npt.NDArray[np.uint8]
Tile = tuple[str, Pixels]


def main() -> None:
    """Read the folder named on the command line and write `{train,val}/{none,one,several}/*.png`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train.json, val.json, train/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tiles, new or empty")
    parser.add_argument("--size", type=int, default=64, help="edge of a tile in pixels")
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()):
        parser.error(f"--out {options.out} is not empty: choose another folder")
    seen: set[bytes] = set()
    for split in ("train", "val"):
        by_class = _tiles_by_class(options.data, split, options.size, seen)
        count = min(len(tiles) for tiles in by_class)
        for name, tiles in zip(CLASSES, by_class, strict=True):
            _write(evenly_spaced(tiles, count), options.out / split / name)


def _tiles_by_class(data: Path, split: str, size: int, seen: set[bytes]) -> list[list[Tile]]:
    """The tiles of each class, in the order of the annotation file, but for those in `seen`, which grows."""
    annotations = json.loads((data / f"{split}.json").read_text(encoding="utf-8"))
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in annotations["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    by_class: list[list[Tile]] = [[] for _ in CLASSES]
    for entry in annotations["images"]:
        with Image.open(data / split / entry["file_name"]) as opened:
            image = np.asarray(opened.convert("RGB"))
        nuclei = _numbered(by_image[entry["id"]], image.shape[:2])
        for name, count, tile in _cut(image, nuclei, size):
            if (pixels := tile.tobytes()) not in seen:
                seen.add(pixels)
                by_class[min(count, len(CLASSES) - 1)].append((f"{entry['id']}-{name}", tile))
    return by_class


def _numbered(annotations: list[dict[str, Any]], size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """An image whose pixels hold the number of their nucleus, from 1, and 0 where there is none."""
    numbers = np.zeros(size, dtype=np.int32)
    for number, annotation in enumerate(annotations, start=1):
        numbers[coco_mask.decode(annotation["segmentation"]).astype(bool)] = number
    return numbers


def _cut(image: Pixels, nuclei: npt.NDArray[np.int32], size: int) -> Iterator[tuple[str, int, Pixels]]:
    """Place, number of nuclei and pixels of each whole tile of a grid over the image."""
    areas = np.bincount(nuclei.reshape(-1))
    for top in range(0, image.shape[0] - size + 1, size):
        for left in range(0, image.shape[1] - size + 1, size):
            here = np.s_[top : top + size, left : left + size]
            inside = np.bincount(nuclei[here].reshape(-1), minlength=len(areas))
            counted = (inside >= LEAST_PIXELS) & (2 * inside >= areas)
            yield f"{top}-{left}", int(counted[1:].sum()), image[here]


def _write(tiles: list[Tile], folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, pixels in tiles:
        Image.fromarray(pixels).save(folder / f"{name}.png")


if __name__ == "__main__":
    main()
