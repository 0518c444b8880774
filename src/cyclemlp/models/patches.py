"""Stem and downsampling as in Swin: patches that do not overlap, for AS-MLP and CycleMLP-T/S/B, at any image size.

The classifiers of Swin and AS-MLP assert a size that divides. Here the right and lower border is padded with zeros, as
in Swin for detection: nothing of the image is cut off, maps have ceil(edge / stride) positions, and for a size that
divides the values are exactly the original's. The zeros take part in what follows like any patch (also in AS-MLP's
statistics over the whole map); padding each map where it is odd adds fewer of them than padding the image once.
"""

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.models.pyramid import Spacing, Stem
from cyclemlp.ops.shift import is_exporting


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
        self.conv: nn.Module = nn.Conv2d(in_chans, width, 4, stride=4)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_chans, height, width) -> (batch, ceil(height / 4), ceil(width / 4), channels)."""
        return self.norm(self.conv(_padded_patches(x)).permute(0, 2, 3, 1).contiguous())


class PatchMerging(nn.Module):
    """Four neighbours concatenated along the channels, a norm, then a linear layer from four widths to two."""

    def __init__(self, width: int, norm: nn.Module, spacing: Spacing) -> None:
        super().__init__()
        self.stride, self.dilation = spacing.stride, spacing.downsample_dilation
        self.norm = norm
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> (batch, ceil(height / stride), ceil(width / stride), 2 * channels)."""
        return self.reduction(self.norm(_neighbours(x_nhwc, self.stride, self.dilation)))


def _padded_patches(x: Tensor) -> Tensor:
    """Images whose every pixel is in a whole 4x4 patch; what is too much, the convolution leaves out."""
    height, width = x.shape[2:]
    if _is_free(height, width):
        return F.pad(x, (0, 3, 0, 3))
    return F.pad(x, (0, -width % 4, 0, -height % 4)) if height % 4 or width % 4 else x


def _neighbours(x_nhwc: Tensor, stride: int, dilation: int) -> Tensor:
    """Every `stride`-th position with those `dilation` below, to the right and across, zero outside: 4 * channels."""
    height, width = x_nhwc.shape[1:3]
    # Swin's order: the two rows of the left column, then those of the right one.
    places = [(down, right) for right in (0, dilation) for down in (0, dilation)]
    if stride == 1 or _is_free(height, width):
        padded = [F.pad(x_nhwc, (0, 0, 0, right, 0, down)) for down, right in places]
    elif height % 2 or width % 2:
        padded = [F.pad(x_nhwc, (0, 0, 0, width % 2, 0, height % 2))] * len(places)
    else:
        padded = [x_nhwc] * len(places)
    parts = [x[:, down::stride, right::stride] for x, (down, right) in zip(padded, places, strict=True)]
    return torch.cat(parts, -1)


def _is_free(height: int, width: int) -> bool:
    """Whether a graph is being made that has to hold at other sizes, so that no condition may depend on them."""
    if torch.jit.is_tracing() or not type(height) is type(width) is int:  # type: ignore[attr-defined, no-untyped-call]
        return True
    return torch.compiler.is_compiling() and not is_exporting()


torch.fx.wrap("_padded_patches")  # each is one node of a symbolic trace, because it looks at shapes
torch.fx.wrap("_neighbours")
