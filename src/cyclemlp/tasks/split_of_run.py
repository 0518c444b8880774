"""The validation split that `--val-share` made for a run: it is made again for the data of that run and no other.

A model card keeps the name of the data folder, not its place: links are followed, so that `--data .` or a link to the
folder is the same data. A folder of another name is other data, of which nothing was held out.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cyclemlp.data.datasets import SplitDataset
from cyclemlp.data.held_out import HoldOut, held_limits
from cyclemlp.data.problems import DataRequest
from cyclemlp.errors import DataError, did_you_mean
from cyclemlp.files import JsonObject
from cyclemlp.tasks.options import RunConfig

if TYPE_CHECKING:
    from cyclemlp.tasks.base import Dataset
    from cyclemlp.tasks.card import ModelCard

DatasetT = TypeVar("DatasetT", bound="Dataset")

_TRAINED_ON = "trained by cyclemlp on "
_LOG = logging.getLogger(__name__)


def trained_on(data: Path) -> str:
    """The `source` in the card of a network that is trained on this folder."""
    return f"{_TRAINED_ON}{data.resolve().name}"


def held_out_by(config: RunConfig, dataset: object) -> JsonObject:
    """What the card says of the images that a run holds out."""
    held = config.validation.for_card(config.machine.seed)
    if config.hold_out is None or not isinstance(dataset, SplitDataset):
        return held
    return {**held, "val_limits": held_limits(dataset, config.hold_out)}


def hold_out_of_run(card: "ModelCard", data: Path, split: str) -> HoldOut | None:
    """How the run of a card made `train` and `val`, where these are asked for of the data that it was trained on."""
    if card.val_share is None or split not in ("train", "val") or card.source != trained_on(data):
        return None
    return HoldOut(card.val_share, card.val_seed, card.val_block, card.val_margin, card.val_limits)


def find_split(
    find: Callable[[Path, DataRequest], DatasetT], data: Path, request: DataRequest, card: "ModelCard"
) -> DatasetT:
    """The data set with the split that is requested for the network of a card. Raises DataError."""
    split = request.split or ""
    try:
        dataset = find(data, request)
        if split not in dataset.splits:
            near = did_you_mean(split, dataset.splits)
            raise DataError(f"{data} has no split {split!r}; it has {', '.join(dataset.splits)}.{near}")
    except DataError:
        if split == "val" and _other_data(card, data, split) and _has_train_alone(find, data, request):
            refuse_other_data(card, data, split, "train")
        raise
    if "val" not in dataset.splits and _other_data(card, data, split):
        name = card.source.removeprefix(_TRAINED_ON)
        what = "note: --val-share held out some of %r in training; of %s all training images are used"
        _LOG.warning(what, name, data)
    return dataset


def refuse_other_data(card: "ModelCard", data: Path, split: str, instead: str) -> None:
    """For data without a split that the run made: raise DataError if the run made it of data of another name."""
    if _other_data(card, data, split):
        name = card.source.removeprefix(_TRAINED_ON)
        what = f"{data} has no {split}, and that of the run was held out of {name!r}"
        raise DataError(f"{what}: give that folder as --data, or --split {instead}")


def _other_data(card: "ModelCard", data: Path, split: str) -> bool:
    """Whether the run made this split, and of data of another name."""
    return card.val_share is not None and split in ("train", "val") and card.source != trained_on(data)


def _has_train_alone(find: Callable[[Path, DataRequest], DatasetT], data: Path, request: DataRequest) -> bool:
    try:
        return "val" not in find(data, replace(request, split="train")).splits
    except DataError:
        return False  # and the first error says what is wrong
