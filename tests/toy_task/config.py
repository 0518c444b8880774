"""Options of a regression run."""

from dataclasses import dataclass
from typing import Literal

from cyclemlp.option_checks import choice
from cyclemlp.tasks.options import RunConfig


@dataclass(frozen=True, kw_only=True)
class RegressionConfig(RunConfig):
    """A whole regression run; only `data` has to be given."""

    head_width: int = 16
    """Channels of the head."""
    distance: Literal["absolute", "squared"] = "absolute"
    """What the loss is the mean of: absolute or squared differences."""

    def __post_init__(self) -> None:
        choice(self, "distance", ("absolute", "squared"))
