"""What a task brings to training; the rest of this package is the same for all of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.data import default_collate

from cyclemlp.tasks.card import ModelCard
from cyclemlp.training.evaluation import Evaluator
from cyclemlp.training.loader import Collate, Samples

ParameterGroups = list[dict[str, Any]]


class TaskLoss(nn.Module, ABC):
    """What a task minimises; a module, so that its buffers follow the network to its device."""

    terms: tuple[str, ...] = ()
    """Names of what `forward` gives beside `loss`."""

    @abstractmethod
    def forward(self, model: nn.Module, images: Tensor, targets: Any) -> dict[str, Tensor]:
        """The network's `loss` on a batch, and its terms, as scalars."""


@dataclass(frozen=True)
class TrainingTask:
    """A network, what it learns from, and how well it does."""

    card: ModelCard
    """The network as it will be saved; its `task` names the scores."""
    model: nn.Module
    loss: TaskLoss
    samples: Samples
    evaluator: Evaluator
    groups: Callable[[nn.Module], ParameterGroups]
    """The optimiser's groups."""
    idle: Sequence[nn.Module] = ()
    """Parts of the network that stay as in prediction."""
    repeats: int = 1
    """How often a pass takes each sample, under different random changes; a pass then meets fewer of them."""
    kinds: Sequence[int] | None = None
    """A number for each sample; a batch is of samples of one number where it can be."""
    collate: Collate = default_collate
    """From a list of samples to a batch of images and targets."""
