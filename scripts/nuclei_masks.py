"""Turn an instance segmentation data set in COCO form into class masks: pixels of any instance against the rest.

    python scripts/nuclei_masks.py DSB2018_FOLDER --out nuclei-masks
    cyclemlp train segmentation --data nuclei-masks

The pictures are stored again as RGB without loss.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

CLASSES = ("background", "nucleus")


def main() -> None:
    """Read the folder named on the command line and write `images/`, `masks/` and `classes.txt`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train.json, val.json, train/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="folder for images and masks, new or empty")
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()):
        parser.error(f"--out {options.out} is not empty: choose another folder")
    for split in ("train", "val"):
        _convert(options.data, split, options.out)
    (options.out / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")


def _convert(data: Path, split: str, out: Path) -> None:
    annotations = json.loads((data / f"{split}.json").read_text(encoding="utf-8"))
    outlines: dict[int, list[Any]] = defaultdict(list)
    for annotation in annotations["annotations"]:
        outlines[annotation["image_id"]].append(annotation["segmentation"])
    for kind in ("images", "masks"):
        (out / kind / split).mkdir(parents=True)
    for entry in annotations["images"]:
        name = f"{Path(entry['file_name']).stem}.png"
        with Image.open(data / split / entry["file_name"]) as image:
            image.convert("RGB").save(out / "images" / split / name)
        mask = np.zeros((entry["height"], entry["width"]), dtype=np.uint8)
        for outline in outlines[entry["id"]]:
            mask |= coco_mask.decode(outline)
        Image.fromarray(mask).save(out / "masks" / split / name)


if __name__ == "__main__":
    main()
