"""The moving average of the weights, which is what is evaluated and saved."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage(AveragedModel):
    """An exponential moving average of parameters and BatchNorm statistics; short runs get a shorter memory.

    The first update copies the weights. The decay of update n + 1 is `decay`, or (1 + n) / (10 + n) where that is less.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=self._average, use_buffers=True)
        self.requires_grad_(False)
        self._decay = decay

    def _average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], _count: Tensor | int) -> None:
        """Update tensors of one type; all of them are handled by a few kernels."""
        if not averaged[0].is_floating_point():  # BatchNorm's counter
            for old, new in zip(averaged, current, strict=True):
                old.copy_(new)
            return
        steps = int(self.n_averaged)  # stays on the CPU, so that reading it does not wait for the GPU
        decay = min(self._decay, (1.0 + steps) / (10.0 + steps))
        get_ema_multi_avg_fn(decay)(averaged, current, steps)  # type: ignore[no-untyped-call]
