"""A validation split on request: a share of the training images, chosen by a hash of seed and name.

The choice looks at nothing else, so images that are added later do not move any other image between the splits. Of
images that lie somewhere on the Earth, blocks of the ground are chosen by a hash of seed and place instead; images of
other ground that are added later can change their size.
"""

import hashlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from cyclemlp.data.common_ground import footprints
from cyclemlp.data.ground_blocks import MARGIN, GroundPart, blocks_of
from cyclemlp.data.masks import MaskDataset, MaskSplit
from cyclemlp.errors import ConfigError, DataError

MAX_SHARE = 0.9
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class HoldOut:
    """Which images validate."""

    share: float
    """Their share of all, from above 0 to 0.9."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= MAX_SHARE:
            raise ConfigError(f"--val-share {self.share:g} is not allowed: give a share above 0 and up to {MAX_SHARE}")

    def holds(self, name: str) -> float:
        """A number from 0 to 1 that follows from the seed and the name."""
        digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64


def hold_out(dataset: MaskDataset, how: HoldOut) -> MaskDataset:
    """The data set with `val` taken out of `train`: the images whose numbers are smallest, at least one.

    Raises DataError where there is a validation split already, or fewer than two images.
    """
    if "val" in dataset.splits:
        raise DataError(f"{dataset.root} has a validation split already: leave --val-share out")
    train = dataset.splits["train"]
    if (by_place := _by_place(dataset, how)) is not None:
        return by_place
    if len(train.images) < 2:
        raise DataError(f"{dataset.root} has {len(train.images)} image, too few to hold one out: add images")
    names = [path.relative_to(_common(dataset.root, path)).as_posix() for path in train.images]
    order = sorted(range(len(names)), key=lambda index: how.holds(names[index]))
    count = min(len(names) - 1, max(1, round(how.share * len(names))))
    held = set(order[:count])
    rule = "%d images train and %d validate, chosen by a hash of their names and seed %d"
    _LOG.info(f"%s: --val-share %g: {rule}", dataset.root, how.share, len(names) - count, count, how.seed)
    parts = {"train": [i for i in range(len(names)) if i not in held], "val": sorted(held)}
    return _with_splits(dataset, {name: _chosen(train, places) for name, places in parts.items()})


def _by_place(dataset: MaskDataset, how: HoldOut) -> MaskDataset | None:
    """The same by blocks of the ground; None where images do not say where they lie, or lie in one block."""
    train = dataset.splits["train"]
    places = footprints(train.images)
    if not places:
        return None
    if silent := [path for path in train.images if path not in places]:
        what = f"{len(silent)} of {len(train.images)} images do not say where they lie, such as {silent[0].name}"
        _LOG.warning("note: %s: %s, so images are held out by name and not by place", dataset.root, what)
        return None
    blocks = blocks_of(places, how.share, how.holds)
    if blocks is None:
        return None
    splits = {}
    for name, validates in (("train", False), ("val", True)):
        part = GroundPart(blocks, validates)
        chosen = [index for index, path in enumerate(train.images) if part.has(path)]
        splits[name] = replace(_chosen(train, chosen), part=part)
    if not all(split.images for split in splits.values()):
        return None
    rule = "%s validate, by a hash of their places and seed %d; training ignores %.2g of an edge around them"
    _LOG.info(f"%s: --val-share %g: {rule}", dataset.root, how.share, blocks.describe(), how.seed, MARGIN)
    return _with_splits(dataset, splits)


def _with_splits(dataset: MaskDataset, splits: dict[str, MaskSplit]) -> MaskDataset:
    return replace(dataset, splits={**splits, **{k: v for k, v in dataset.splits.items() if k != "train"}})


def _common(root: Path, path: Path) -> Path:
    return root if path.is_relative_to(root) else path.parent


def _chosen(split: MaskSplit, places: list[int]) -> MaskSplit:
    images, masks = ([paths[place] for place in places] for paths in (split.images, split.masks))
    return replace(split, images=tuple(images), masks=tuple(masks))
