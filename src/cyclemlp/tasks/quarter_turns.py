"""Whether training samples are turned by quarter turns, where --rotate90 is not given."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from cyclemlp.data.directions import has_no_direction
from cyclemlp.data.sampling import evenly_spaced
from cyclemlp.tasks.classification.config import ClassificationConfig
from cyclemlp.tasks.detection.config import DetectionConfig
from cyclemlp.tasks.segmentation.config import SegmentationConfig

ConfigT = TypeVar("ConfigT", bound=SegmentationConfig | DetectionConfig | ClassificationConfig)
EVENLY = 0.75
"""The probability by which each of the four directions is as frequent."""
_HEADERS_READ = 100

_logger = logging.getLogger(__name__)


def with_quarter_turns(config: ConfigT, images: Sequence[Path]) -> ConfigT:
    """The config with --rotate90 chosen for these training images, and written to the log, where it is not given."""
    options = config.augmentation
    if options.rotate90 is not None:
        return config
    # A run that began without the option continues without it.
    chosen = 0.0 if config.resume else _probability(images)
    turned: Any = replace(options, rotate90=chosen)
    return replace(config, augmentation=turned)


def _probability(images: Sequence[Path]) -> float:
    read = evenly_spaced(images, _HEADERS_READ)
    count = sum(map(has_no_direction, read))
    if count and count == len(read):
        what = "training images are scenes or of microscopes, so samples are turned by 90, 180 and 270 degrees, too"
        _logger.info("%s: --rotate90 %g (0 turns none)", what, EVENLY)
        return EVENLY
    if count:
        what = f"{count} of {len(read)} training images are scenes or of microscopes, the others may be photographs"
        _logger.info("%s: samples are not turned by 90 degrees; --rotate90 %g turns them", what, EVENLY)
    return 0.0
