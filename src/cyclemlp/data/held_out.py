"""A validation split on request: a share of the training images, chosen by a hash of seed and name.

Those of the smallest numbers validate. The largest of these is kept with the model: it says which they were where
images have been added or removed since. Of images that lie somewhere on the Earth, blocks of the ground are chosen by a
hash of seed and place instead: they stay where they are if their edge is given; otherwise it follows from the ground of
all images, and so do the blocks.
"""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from cyclemlp.data.common_ground import Footprint, footprints
from cyclemlp.data.datasets import ClassifiedDataset, ClassifiedSplit, SplitDataset
from cyclemlp.data.folders import name_key
from cyclemlp.data.ground_blocks import Blocks, GroundPart, blocks_of, usual_edge
from cyclemlp.data.held_out_ground import on_its_ground, split_whole_images, whole_image_edge
from cyclemlp.data.masks import MaskSplit
from cyclemlp.data.objects import DetectionSplit
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.option_checks import at_least_zero, positive

MAX_SHARE = 0.9
MAX_MARGIN = 100
"""In edges of a block."""
AnySplit = MaskSplit | DetectionSplit | ClassifiedSplit
DatasetT = TypeVar("DatasetT", bound=SplitDataset[Any])
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class HoldOut:
    """Which images validate."""

    share: float
    """Their share of all, from above 0 to 0.9."""
    seed: int = 0
    block: float | None = None
    """Edge of the blocks of the ground in the units of the coordinates; by default it follows from the images."""
    margin: float | None = None
    """Around held-out blocks, in the same units: what lies in it neither trains nor validates. By default a tenth."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """What `held_limits` returned for a run: images by name are those that it held out, whatever the share is now."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= MAX_SHARE:
            raise ConfigError(f"--val-share {self.share:g} is not allowed: give a share above 0 and up to {MAX_SHARE}")

    def holds(self, name: str) -> float:
        """A number from 0 to 1 that follows from the seed and the name."""
        digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64

    @property
    def by_place(self) -> str:
        """The first option that asks for blocks of the ground, if any."""
        return "--val-block" if self.block is not None else "--val-margin" if self.margin is not None else ""


@dataclass(frozen=True)
class ValidationOptions:
    """What validates where the data have no validation split."""

    val_share: float | None = None
    """Share of the images, such as 0.2, that is held out for validation where the data has no validation split; which ones follows from --seed and their names; of GeoTIFFs blocks of the ground with a margin, by --seed and their places."""  # noqa: E501
    val_block: float | None = None
    """With --val-share: edge of these blocks in metres (in the units of projected coordinates); by default about five blocks are the share."""  # noqa: E501
    val_margin: float | None = None
    """With --val-share: distance in metres from a held-out block within which nothing trains; by default a tenth of the edge."""  # noqa: E501

    def __post_init__(self) -> None:
        positive(self, "val_block")
        at_least_zero(self, "val_margin")
        for name in ("val_block", "val_margin") if self.val_share is None else ():
            if (value := getattr(self, name)) is not None:
                option = f"--{name.replace('_', '-')} {value:g}"
                raise ConfigError(f"{option} is about blocks that are held out: give --val-share as well, such as 0.2")
        self.with_seed(0)

    def with_seed(self, seed: int) -> HoldOut | None:
        """What is held out, if anything. Raises ConfigError for a share that is not allowed."""
        return None if self.val_share is None else HoldOut(self.val_share, seed, self.val_block, self.val_margin)

    def for_card(self, seed: int) -> dict[str, float | None]:
        """What a model card says of it."""
        return {**vars(self), "val_seed": seed if self.val_share is not None else 0}


def hold_out(dataset: DatasetT, how: HoldOut) -> DatasetT:
    """The data set with `val` taken out of `train`: the images whose numbers are smallest, at least one.

    Raises DataError where there is a validation split already, fewer than two images, or no place for blocks that
    were asked for.
    """
    if "val" in dataset.splits:
        raise DataError(f"{dataset.root} has a validation split already: leave --val-share out")
    train = dataset.splits["train"]
    if (by_place := _by_place(dataset, how)) is not None:
        return by_place
    if len(train.images) < 2:
        raise DataError(f"{dataset.root} has {len(train.images)} image, too few to hold one out: add images")
    held = _held_by_name(dataset.root, train, how)
    parts = {"train": [i for i in range(len(train.images)) if i not in held], "val": sorted(held)}
    rule = "%d images train and %d validate, chosen by a hash of their names and seed %d"
    _LOG.info(f"%s: --val-share %g: {rule}", dataset.root, how.share, *map(len, parts.values()), how.seed)
    return _with_splits(dataset, {name: _chosen(train, places) for name, places in parts.items()})


def _held_by_name(root: Path, train: AnySplit, how: HoldOut) -> set[int]:
    """Numbers of the images that validate; of images with one class each, the share of each class. Raises DataError."""
    if how.limits:
        limits = [how.limits.get(_group(train, path), -1.0) for path in train.images]
        held = {i for i, path in enumerate(train.images) if how.holds(_name(root, path)) <= limits[i]}
        if held:
            return held
        raise DataError(f"{root} has none of the images that the run held out: restore them, or give other --data")
    names = [_name(root, path) for path in train.images]
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index in range(len(names)):
        groups[train.labels[index] if isinstance(train, ClassifiedSplit) else 0].append(index)
    held = set()
    for group in groups.values():
        order = sorted(group, key=lambda index: how.holds(names[index]))
        held |= set(order[: min(len(group) - 1, round(how.share * len(group)))])
    largest = max(groups.values(), key=lambda group: len(group))
    return held or {min(largest, key=lambda index: how.holds(names[index]))}


def held_limits(dataset: SplitDataset[Any], how: HoldOut) -> dict[str, float]:
    """The highest number of an image that validates, of each group that is divided on its own; none by place."""
    val: AnySplit = dataset.splits["val"]
    limits: dict[str, float] = {}
    for path in val.images if val.part is None else ():
        group = _group(val, path)
        limits[group] = max(limits.get(group, 0.0), how.holds(_name(dataset.root, path)))
    return limits


def _group(split: AnySplit, path: Path) -> str:
    """The images of each class folder are divided on their own, whichever classes are merged."""
    return name_key(path.parent.name) if isinstance(split, ClassifiedSplit) else ""


def _name(root: Path, path: Path) -> str:
    return path.relative_to(_common(root, path)).as_posix()


def _by_place(dataset: DatasetT, how: HoldOut) -> DatasetT | None:
    """The same by blocks of the ground; None where images do not say where they lie, or lie in one block.

    Raises DataError in those cases where blocks were asked for.
    """
    train = dataset.splits["train"]
    places = footprints(train.images)
    silent = [path for path in train.images if path not in places]
    if silent and (places or how.by_place):
        what = f"{len(silent)} of {len(train.images)} images do not say where they lie, such as {silent[0].name}"
        if how.by_place:
            raise DataError(f"{dataset.root}: {what}: leave {how.by_place} out, and images are held out by name")
        _LOG.warning("note: %s: %s, so images are held out by name and not by place", dataset.root, what)
    if silent or not places:
        return None
    edge = _edge_of_blocks(dataset, how, places)
    blocks = blocks_of(places, how.share, how.holds, edge, how.margin, usual=how.block is None)
    splits = {} if blocks is None else _parts(train, blocks, places)
    if blocks is None or not all(split.images for split in splits.values()):
        if how.by_place:
            what = "all images lie in one block, or near a held-out one: give a smaller --val-block or --val-margin"
            raise DataError(f"{dataset.root}: {what}")
        return None
    rule = "%s validate, by a hash of their places and seed %d; training ignores %.2g of an edge around them"
    _LOG.info(f"%s: --val-share %g: {rule}", dataset.root, how.share, blocks.describe(), how.seed, blocks.margin)
    return _with_splits(dataset, splits)


def _edge_of_blocks(dataset: SplitDataset[Any], how: HoldOut, places: Mapping[Path, Footprint]) -> float:
    """The edge that is asked for, or follows from the images. Raises DataError for a margin of many blocks."""
    find = whole_image_edge if isinstance(dataset, ClassifiedDataset) else usual_edge
    edge = find(places, how.share) if how.block is None else how.block
    if how.margin is not None and how.margin > MAX_MARGIN * edge:
        what = f"--val-margin {how.margin:g} is more than {MAX_MARGIN} blocks of {edge:g}"
        raise DataError(f"{dataset.root}: {what}: give a smaller one, or a larger --val-block")
    return edge


def _parts(train: AnySplit, blocks: Blocks, places: Mapping[Path, Footprint]) -> dict[str, AnySplit]:
    """Pixels and objects are divided, but an image with one class is in one split or in none."""
    whole = split_whole_images(blocks, places) if isinstance(train, ClassifiedSplit) else None
    splits: dict[str, AnySplit] = {}
    for name, validates in (("train", False), ("val", True)):
        part = GroundPart(blocks, validates)
        has = part.has if whole is None else whole[name].__contains__
        split = replace(_chosen(train, [i for i, path in enumerate(train.images) if has(path)]), part=part)
        if isinstance(split, DetectionSplit):
            records = tuple(on_its_ground(*each, part) for each in zip(split.records, split.images, strict=True))
            split = replace(split, records=records)
        splits[name] = split
    return splits


def _with_splits(dataset: DatasetT, splits: Mapping[str, AnySplit]) -> DatasetT:
    others = {name: split for name, split in dataset.splits.items() if name != "train"}
    return replace(dataset, splits={**splits, **others})


def _common(root: Path, path: Path) -> Path:
    return root if path.is_relative_to(root) else path.parent


def _chosen(split: AnySplit, places: Sequence[int]) -> AnySplit:
    """The split of some of its images, with their labels."""
    images = tuple(split.images[place] for place in places)
    if isinstance(split, MaskSplit):
        return replace(split, images=images, masks=tuple(split.masks[place] for place in places))
    if isinstance(split, ClassifiedSplit):
        return replace(split, images=images, labels=tuple(split.labels[place] for place in places))
    # COCO's own file has the objects of both splits.
    return replace(split, images=images, records=tuple(split.records[place] for place in places), annotations=None)
