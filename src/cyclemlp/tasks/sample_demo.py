"""What `cyclemlp demo` needs to know of a task."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from cyclemlp.files import JsonMapping
from cyclemlp.tasks.base import Predict
from cyclemlp.tasks.score_text import score_lines

if TYPE_CHECKING:
    from PIL.Image import Image


class SampleDemo(ABC):
    """How `cyclemlp demo` shows a task on the sample that comes as a package."""

    recipe: str
    """Name of the recipe that comes with the package."""
    per_class: str
    """Key of the scores of single classes that the table shows."""
    over_classes: tuple[str, ...]
    """Keys of the other scores that it shows."""
    data_name: str
    """What the result calls the sample."""
    held_out: str
    """What the scores are of."""
    picture: str
    """File name of what `draw` returns."""
    by_default: bool = False
    """Whether it is shown where no task is named."""

    @abstractmethod
    def prepare(self) -> Path:
        """The sample's folder. Raises MissingExtraError."""

    @abstractmethod
    def draw(self, predict: Predict, classes: tuple[str, ...], data: Path) -> "Image":
        """What the network predicts for the sample; `predict` is that of a predictor."""

    def table(self, metrics: JsonMapping) -> list[str]:
        """The scores as lines of text."""
        rows = [*metrics[self.per_class].items(), *((name, metrics[name]) for name in self.over_classes)]
        return [self.held_out, *score_lines(rows, self.per_class)]
