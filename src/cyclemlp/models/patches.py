"""Stem and downsampling as in Swin: patches that do not overlap, for AS-MLP and CycleMLP-T/S/B, at any image size.

The classifiers of Swin and AS-MLP assert a size that divides. Here the right and lower border is padded with zeros, as
in Swin for detection: nothing of the image is cut off, maps have ceil(edge / stride) positions, and for a size that
divides the values are exactly the original's. The zeros take part in what follows like any patch (also in AS-MLP's
statistics over the whole map); padding each map where it is odd adds fewer of them than padding the image once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.models.pyramid import Stem


def doubling(width: int) -> tuple[int, int, int, int]:
    """Widths of the four stages, which mergings double."""
    return width, 2 * width, 4 * width, 8 * width


class GroupNormNHWC(nn.GroupNorm):
    """Normalises over positions and channels of an image together, with a scale and a bias for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__(1, width)

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> the same."""
        return super().forward(x_nhwc.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class PatchStem(Stem):
    """A linear layer over each 4x4 patch, then a norm; images in, channels-last out."""

    def __init__(self, in_chans: int, width: int, norm: nn.Module, stepsize: int | None = None) -> None:
        super().__init__()
        self.stepsize = stepsize
        self.conv = nn.Conv2d(in_chans, width, 4, stride=4)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_chans, height, width) -> (batch, ceil(height / 4), ceil(width / 4), channels)."""
        height, width = x.shape[2:]
        if height % 4 or width % 4:
            x = F.pad(x, (0, -width % 4, 0, -height % 4))
        return self.norm(self.conv(x).permute(0, 2, 3, 1).contiguous())


class PatchMerging(nn.Module):
    """Four neighbours concatenated along the channels, a norm, then a linear layer from four widths to two."""

    def __init__(self, width: int, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> (batch, ceil(height / 2), ceil(width / 2), 2 * channels)."""
        height, width = x_nhwc.shape[1:3]
        if height % 2 or width % 2:
            x_nhwc = F.pad(x_nhwc, (0, 0, 0, width % 2, 0, height % 2))
        # Swin's order: the two rows of the left column, then those of the right one.
        parts = [x_nhwc[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, -1)))
