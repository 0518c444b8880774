"""The width of a dense network's head where --head-width is not given."""

from dataclasses import replace
from typing import TypeVar

from cyclemlp.heads.widths import PAPER_WIDTHS, default_width
from cyclemlp.tasks.card import ModelCard, card_beside
from cyclemlp.tasks.detection.config import DetectionConfig
from cyclemlp.tasks.segmentation.config import SegmentationConfig

DenseConfigT = TypeVar("DenseConfigT", bound=DetectionConfig | SegmentationConfig)


def with_head_width(config: DenseConfigT, task: str) -> DenseConfigT:
    """The config with the width of its head filled in: that of the network in --init, or the backbone's default.

    Raises ConfigError for an unknown backbone or head, CheckpointError for a damaged card.
    """
    if config.head_width is not None:
        return config
    card = None if config.init is None else card_beside(config.init)
    same = card is not None and (card.task, card.model, card.head) == (task, config.model, config.head)
    width = head_width_of(card) if card is not None and same else None
    return replace(config, head_width=width or default_width(config.model, config.head))


def head_width_of(card: ModelCard) -> int | None:
    """Channels of the head, where the card leaves them to the paper as well; None for a head without a width."""
    return card.head_width or PAPER_WIDTHS.get(card.head)
