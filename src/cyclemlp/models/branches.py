"""Token mixing by any set of branches: the paper's ablation of them (Table 4), and step sizes along both axes.

A branch is written as its pseudo-kernel, `HxW`: '1x3' is a staircase of length 3 along the width, '3x1' along the
height, '3x3' along both, and '1x1' a plain channel FC. A branch may be given twice, as two rows of Table 4 have it. The
re-weighting MLP stays and gives one weight for each branch: only so do the published counts come out.
"""

import re
from collections.abc import Sequence

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from cyclemlp.errors import ConfigError
from cyclemlp.ops import CycleFC

FULL = ("1x3", "3x1", "1x1")
"""The branches of B1-B5."""
ABLATIONS = (
    ("1x3", "1x1"),
    ("3x1", "1x1"),
    ("1x3", "3x1"),
    ("1x3", "1x3", "1x1"),
    ("3x1", "3x1", "1x1"),
    FULL,
)
"""The six rows of the paper's Table 4, in its order."""

_KERNEL = re.compile(r"([1-9]\d*)x([1-9]\d*)")


def parse_branch(branch: str) -> tuple[int, int]:
    """Step sizes along height and width of 'HxW'. Raises ConfigError for anything else."""
    match = _KERNEL.fullmatch(branch)
    if match is None:
        raise ConfigError(f"branch {branch!r} is not known: write HxW, such as 1x3, 3x1, 1x1 or 3x3")
    return int(match[1]), int(match[2])


class BranchedMixer(nn.Module):
    """Branches weighted per image and channel, summed and projected; `CycleMixer` for any set of them.

    Args:
        width: channels.
        branches: pseudo-kernels such as ('1x3', '3x1', '1x1'), at least one.

    Raises:
        ConfigError: no branch, or one that is not of the form HxW.
    """

    def __init__(self, width: int, branches: Sequence[str]) -> None:
        super().__init__()
        if not branches:
            raise ConfigError("a token mixer needs a branch or more, such as 1x3 3x1 1x1")
        self.branches = nn.ModuleList(_branch(width, parse_branch(each)) for each in branches)
        self.reweight = Mlp(width, width // 4, len(branches) * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> the same."""
        maps = torch.stack([branch(x_nhwc) for branch in self.branches], -1)
        precise = torch.promote_types(maps.dtype, torch.float32)  # a half-precision sum of many loses digits
        mean_nc = maps.sum(-1).mean((1, 2), dtype=precise).to(maps.dtype)
        logits = self.reweight(mean_nc).reshape(len(mean_nc), 1, 1, -1, len(self.branches))
        weights = logits.softmax(-1, dtype=precise).to(maps.dtype)
        out: Tensor = self.proj((maps * weights).sum(-1))
        return out


def _branch(width: int, stepsize: tuple[int, int]) -> nn.Module:
    return nn.Linear(width, width, bias=False) if stepsize == (1, 1) else CycleFC(width, width, stepsize=stepsize)
