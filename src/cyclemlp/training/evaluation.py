"""Evaluation while training: the same for all tasks but for what is counted."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from cyclemlp.data.sampling import evenly_spaced


class Counts(Protocol):
    """Sums from which the scores follow; those of several processes add up."""

    def merge(self, other: Any, /) -> None:
        """Add the counts of `other`, as if its images had been counted here."""
        ...

    def metrics(self, classes: Sequence[str], /) -> Mapping[str, Any]:
        """The scores, under the names of the task."""
        ...


class Evaluator(ABC):
    """Counts what a network gets right on a split of `size` images; a task says how."""

    together = 1
    """Images given to `count_some` at a time."""

    def __init__(self, size: int, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self._size = size

    @abstractmethod
    def no_counts(self) -> Counts:
        """Counts of nothing yet."""

    @abstractmethod
    def count_some(self, counts: Any, model: nn.Module, device: torch.device, indices: Sequence[int]) -> None:
        """Add the images of these numbers to `counts`."""

    def count(
        self,
        model: nn.Module,
        device: torch.device,
        *,
        most: int | None = None,
        part: tuple[int, int] = (0, 1),
        stop: Callable[[], bool] = bool,
    ) -> Counts | None:
        """Counts over at most `most` images, spread evenly; with `part` (i, n) only every n-th of them from i on.

        None where `stop()` turned true before the end. The network is left in the mode it was in.
        """
        counts = self.no_counts()
        chosen = self._chosen(most)[part[0] :: part[1]]
        was_training = model.training
        model.eval()
        try:
            for start in range(0, len(chosen), self.together):
                if stop():
                    return None
                with torch.no_grad():
                    self.count_some(counts, model, device, chosen[start : start + self.together])
        finally:
            model.train(was_training)
        return counts

    def _chosen(self, most: int | None) -> list[int]:
        if most is None or most >= self._size:
            return list(range(self._size))
        return evenly_spaced(range(self._size), most)
