"""What a task minimises."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from cyclemlp.tasks.base import Targets


class TaskLoss(nn.Module, ABC):
    """The loss of a task; a module, so that its buffers follow the network to its device."""

    terms: tuple[str, ...] = ()
    """Names of what `forward` returns in addition to `loss`."""

    @abstractmethod
    def forward(self, model: nn.Module, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The `loss` of the network on a batch, and its terms, as scalars."""
