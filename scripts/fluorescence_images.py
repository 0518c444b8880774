"""The fluorescence images of DSB2018 in COCO form, as a data set of their own.

StarDist and others publish scores for these images alone. They are grey, with bright nuclei on a dark background: here,
images without colour whose median is below a fourth of white. The other images are of stained tissue and brightfield.

    python scripts/fluorescence_images.py DSB2018_FOLDER --out dsb2018-fluorescence
    cyclemlp train instance-segmentation --config nuclei-outlines --data dsb2018-fluorescence
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from cyclemlp.files import atomic_folder

DARK = 64
"""Grey value below which the median of an image has to lie."""
COLOURLESS = 3
"""Most grey values by which the channels of a grey image differ."""


def is_fluorescence(path: Path) -> bool:
    """Whether the image is grey and mostly dark."""
    with Image.open(path) as opened:
        image = np.asarray(opened.convert("RGB")).astype(np.int16)
    return bool(np.ptp(image, axis=2).max() <= COLOURLESS and np.median(image) < DARK)


def main() -> None:
    """Copy what belongs from the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train.json, val.json, train/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    options = parser.parse_args()
    with atomic_folder(options.out) as part:
        for split in ("train", "val"):
            count = _copy(options.data, split, part)
            sys.stdout.write(f"{split}: {count} fluorescence images\n")


def _copy(data: Path, split: str, out: Path) -> int:
    content = json.loads((data / f"{split}.json").read_text(encoding="utf-8"))
    (out / split).mkdir()
    kept = [entry for entry in content["images"] if is_fluorescence(data / split / entry["file_name"])]
    for entry in kept:
        shutil.copyfile(data / split / entry["file_name"], out / split / entry["file_name"])
    numbers = {entry["id"] for entry in kept}
    annotations = [each for each in content["annotations"] if each["image_id"] in numbers]
    (out / f"{split}.json").write_text(
        json.dumps({**content, "images": kept, "annotations": annotations}), encoding="utf-8"
    )
    return len(kept)


if __name__ == "__main__":
    main()
