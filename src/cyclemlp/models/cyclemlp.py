"""CycleMLP B1-B5, and the small `cyclemlp_nano` of this package.

Paper: Chen, Xie, Ge, Chen, Liang, Luo, "CycleMLP: A MLP-like Architecture for Dense Prediction", ICLR 2022,
arXiv 2107.10224. Their code: github.com/ShoufaChen/CycleMLP (MIT). Written from the paper's formulas; values equal
those of the authors' code. Three things differ: activations stay channels-last, CycleFC moves channels instead of
deforming a convolution, and names say which axis moves (the authors' `sfc_h` moves along the width: `along_width`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.fx
from timm.layers import Mlp
from torch import Tensor, nn

from cyclemlp.models.branches import BranchedMixer
from cyclemlp.models.pyramid import MixerBlock, MlpPyramid, PyramidSizes, Spacing, Stage, Stem, conv_downsample
from cyclemlp.models.registration import register_models
from cyclemlp.ops import CycleFC
from cyclemlp.ops.precision import at_least_float32


@dataclass(frozen=True)
class CycleMLPSizes(PyramidSizes):
    """The sizes of one model (paper, Table 1)."""

    stepsize: int = 3
    """Length of the staircase along each axis, in positions; odd."""
    branches: tuple[str, ...] = ()
    """Pseudo-kernels that replace the three branches of `stepsize`, for ablations; see `branches.py`."""


SIZES = {
    # This package's own, of about 4 M parameters: for small data, small machines and tests.
    "cyclemlp_nano": CycleMLPSizes((32, 64, 160, 256), (2, 2, 4, 2)),
    # Millions of parameters and billions of FLOPs as in the paper: 15.2 and 2.1, 26.8 and 3.9, 38.4 and 6.9, 51.8 and
    # 10.1, 75.7 and 12.3.
    "cyclemlp_b1": CycleMLPSizes((64, 128, 320, 512), (2, 2, 4, 2)),
    "cyclemlp_b2": CycleMLPSizes((64, 128, 320, 512), (2, 3, 10, 3)),
    "cyclemlp_b3": CycleMLPSizes((64, 128, 320, 512), (3, 4, 18, 3), (8, 8, 4, 4)),
    "cyclemlp_b4": CycleMLPSizes((64, 128, 320, 512), (3, 8, 27, 3), (8, 8, 4, 4)),
    "cyclemlp_b5": CycleMLPSizes((96, 192, 384, 768), (3, 4, 24, 3)),
}

torch.fx.wrap("at_least_float32")  # a symbolic trace does not know types


class WeightedMixer(nn.Module):
    """What token mixers with three branches share: their weights per image and channel, and the projection.

        a = softmax over the branches of reweight(mean over positions of (h + w + c))
        y = proj(a_h * h + a_w * w + a_c * c)

    The published text leaves out the weights a and the projection; the authors' code and parameter counts have both.
    """

    reweight: Mlp
    proj: nn.Linear

    def mixed(self, h: Tensor, w: Tensor, c: Tensor) -> Tensor:
        """The branches along width, height and channels, (batch, height, width, channels) each -> the same."""
        a_h, a_w, a_c = self.branch_weights(self.position_mean(h + w + c)).unbind(-1)
        return self.proj(h * a_h + w * a_w + c * a_c)

    def position_mean(self, total_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> means over the positions (batch, channels)."""
        # Statistics in float32 at least: a half-precision sum over many positions loses digits.
        return total_nhwc.mean((1, 2), dtype=at_least_float32(total_nhwc)).to(total_nhwc.dtype)

    def branch_weights(self, mean_nc: Tensor) -> Tensor:
        """Mean over positions (batch, channels) -> (batch, 1, 1, channels, 3) that sum to 1 over the last axis."""
        logits = self.reweight(mean_nc).unflatten(-1, (-1, 3))[:, None, None]
        return logits.softmax(-1, dtype=at_least_float32(logits)).to(logits.dtype)


class CycleMixer(WeightedMixer):
    """Token mixing: staircases along both axes and a plain channel FC, weighted per image and channel, projected.

    h = along_width(x)    w = along_height(x)    c = along_channels(x)    y = mixed(h, w, c)
    """

    def __init__(self, width: int, stepsize: int = 3, dilation: int = 1) -> None:
        super().__init__()
        self.stepsize, self.dilation = stepsize, dilation
        self.along_width = CycleFC(width, width, stepsize=(1, stepsize), dilation=dilation)
        self.along_height = CycleFC(width, width, stepsize=(stepsize, 1), dilation=dilation)
        self.along_channels = nn.Linear(width, width, bias=False)
        self.reweight = Mlp(width, width // 4, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> the same."""
        return self.mixed(self.along_width(x_nhwc), self.along_height(x_nhwc), self.along_channels(x_nhwc))


class CycleBlock(MixerBlock):
    """The block of every CycleMLP (paper, Figure 3); `forms/` has others with the same values."""


class ConvStem(Stem, nn.Conv2d):
    """Overlapping 7x7 patches at stride 4, without a norm; images in, channels-last out."""

    def __init__(self, in_chans: int, width: int, stepsize: int | None = None) -> None:
        super().__init__(in_chans, width, 7, stride=4, padding=2)
        self.stepsize = stepsize

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_chans, height, width) -> (batch, height', width', channels), height' = (height + 1) // 4."""
        return super().forward(x).permute(0, 2, 3, 1).contiguous()


class CycleStages(nn.ModuleList):
    """The four stages, in one container because they can only be fused together."""

    def fuse(self) -> nn.ModuleList:
        """Called by timm's `reparameterize_model`."""
        from cyclemlp.models.forms.fused import fuse_stages

        return fuse_stages(self)


class CycleMLP(MlpPyramid[CycleMLPSizes]):
    """The B family of the paper: a 7x7 stem, four stages of `CycleBlock`s with 3x3 convolutions of stride 2 between."""

    def build(
        self,
        sizes: CycleMLPSizes,
        in_chans: int,
        drop_path_rates: Sequence[Sequence[float]],
        spacings: Sequence[Spacing],
    ) -> tuple[nn.Module, nn.ModuleList, nn.Module]:
        widths, branches = sizes.widths, sizes.branches
        stages = []
        for s, (width, spacing) in enumerate(zip(widths, spacings, strict=True)):
            downsample = conv_downsample(widths[s - 1], width, spacing) if s else nn.Identity()
            blocks, dilation = [], spacing.dilation
            for rate in drop_path_rates[s]:
                mixer = (
                    BranchedMixer(width, branches, dilation)
                    if branches
                    else CycleMixer(width, sizes.stepsize, dilation)
                )
                blocks.append(CycleBlock(width, mixer, sizes.mlp_ratios[s], rate))
            stages.append(Stage(downsample, blocks, spacing.reduction))
        if branches:  # only the three usual branches can be fused
            return ConvStem(in_chans, widths[0]), nn.ModuleList(stages), nn.LayerNorm(width)
        return ConvStem(in_chans, widths[0], sizes.stepsize), CycleStages(stages), nn.LayerNorm(width)


register_models(CycleMLP, SIZES, options=("stepsize", "branches"), first_conv="stem")
