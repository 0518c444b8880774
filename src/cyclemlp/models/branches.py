"""Token mixing by any set of branches, for the paper's ablation (Table 4) and for step sizes along both axes.

A branch is written as its pseudo-kernel, `HxW`: '1x3' is a staircase of length 3 along the width, '3x1' along the
height, '3x3' along both, and '1x1' a plain channel FC. The same branch may be named twice, as in two rows of Table 4.
The re-weighting MLP has one output for each branch and channel: only this reproduces the published counts.
"""

import re
from collections.abc import Sequence

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from cyclemlp.errors import ConfigError
from cyclemlp.ops import CycleFC
from cyclemlp.ops.precision import at_least_float32

_KERNEL = re.compile(r"([1-9]\d*)x([1-9]\d*)")


def parse_branch(branch: str) -> tuple[int, int]:
    """Step sizes along height and width of 'HxW'. Raises ConfigError for anything else."""
    match = _KERNEL.fullmatch(branch)
    if match is None:
        raise ConfigError(f"branch {branch!r} is not known: write HxW, such as 1x3, 3x1, 1x1 or 3x3")
    return int(match[1]), int(match[2])


class BranchedMixer(nn.Module):
    """`CycleMixer` with any set of branches: weighted per image and channel, summed and projected.

    Args:
        width: channels.
        branches: pseudo-kernels such as ('1x3', '3x1', '1x1'), at least one.
        dilation: distance between neighbouring steps, in positions.

    Raises:
        ConfigError: no branch, or one that does not have the form HxW.
    """

    def __init__(self, width: int, branches: Sequence[str], dilation: int = 1) -> None:
        super().__init__()
        if not branches:
            raise ConfigError("a token mixer needs at least one branch, such as 1x3 3x1 1x1")
        self.branches = nn.ModuleList(_branch(width, parse_branch(each), dilation) for each in branches)
        self.reweight = Mlp(width, width // 4, len(branches) * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> the same."""
        maps = torch.stack([branch(x_nhwc) for branch in self.branches], -1)
        logits = self.reweight(self.position_mean(maps.sum(-1))).unflatten(-1, (-1, len(self.branches)))[:, None, None]
        weights = logits.softmax(-1, dtype=at_least_float32(maps)).to(maps.dtype)
        return self.proj((maps * weights).sum(-1))

    def position_mean(self, total_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> means over the positions (batch, channels), as in `WeightedMixer`."""
        return total_nhwc.mean((1, 2), dtype=at_least_float32(total_nhwc)).to(total_nhwc.dtype)


def _branch(width: int, stepsize: tuple[int, int], dilation: int) -> nn.Module:
    if stepsize == (1, 1):
        return nn.Linear(width, width, bias=False)
    return CycleFC(width, width, stepsize=stepsize, dilation=dilation)
