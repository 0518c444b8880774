"""What a task brings to training; the rest of this package is the same for all of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.data import default_collate

from cyclemlp.tasks.card import ModelCard
from cyclemlp.training.evaluation import Evaluator

ParameterGroups = list[dict[str, Any]]
Sample = tuple[Tensor, Any]
"""An image (C, H, W) and its target, in the form that the task's loss expects."""
Collate = Callable[[list[Sample]], Any]
"""From samples to a batch of images (B, C, H, W) and targets."""


class Samples(Sized, Protocol):
    """What training draws from: indexable, with a length; its randomness comes from torch's global generator."""

    def __getitem__(self, index: int, /) -> Sample: ...


class TaskLoss(nn.Module, ABC):
    """What a task minimises; a module, so that its buffers follow the network to its device."""

    terms: tuple[str, ...] = ()
    """Names of what `forward` returns in addition to `loss`."""

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
    eval_mode_modules: Sequence[nn.Module] = ()
    """Parts of the network that stay in evaluation mode while the rest trains."""
    repeats: int = 1
    """How often a pass takes each sample, under different random changes; a pass then meets fewer of them."""
    aspect_groups: Sequence[int] | None = None
    """A group number for each sample; batches are made of samples of one group where possible."""
    collate: Collate = default_collate
    """From a list of samples to a batch of images and targets."""
