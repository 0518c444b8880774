"""AS-MLP tiny, small and base, in PyTorch alone and at any image size.

Paper: Lian, Yu, Sun, Gao, "AS-MLP: An Axial Shifted MLP Architecture for Vision", ICLR 2022, arXiv 2107.08391. Their
code: github.com/svip-lab/AS-MLP (MIT), which shifts in a CUDA kernel and asserts one image size. Written from scratch;
values equal those of the authors' code. Two things differ: activations stay channels-last, so 1x1 convolutions are
linear layers, and maps of odd size are padded with zeros (`patches.py` says how and why).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.models.patches import GroupNormNHWC, PatchMerging, PatchStem, doubling
from cyclemlp.models.pyramid import MixerBlock, MlpPyramid, PyramidSizes, Spacing, Stage, init_linear
from cyclemlp.models.registration import register_models
from cyclemlp.ops import AxialFC


@dataclass(frozen=True)
class ASMLPSizes(PyramidSizes):
    """The sizes of one model (paper, Table 1)."""

    shift_size: int = 5
    """The number of channel groups that move along each axis; odd."""


# 28, 50 and 88 million parameters; 4.4, 8.5 and 15.2 billion FLOPs.
SIZES = {
    "asmlp_tiny": ASMLPSizes(doubling(96), (2, 2, 6, 2)),
    "asmlp_small": ASMLPSizes(doubling(96), (2, 2, 18, 2)),
    "asmlp_base": ASMLPSizes(doubling(128), (2, 2, 18, 2)),
}


class AxialMixer(nn.Module):
    """Token mixing: a channel FC, then shifts along both axes with a channel FC each, summed and projected."""

    def __init__(self, width: int, shift_size: int = 5, dilation: int = 1) -> None:
        super().__init__()
        self.proj_in = nn.Linear(width, width)
        self.norm1 = GroupNormNHWC(width)
        self.along_width = AxialFC(width, width, shift_size=shift_size, axis="width", dilation=dilation)
        self.along_height = AxialFC(width, width, shift_size=shift_size, axis="height", dilation=dilation)
        self.norm2 = GroupNormNHWC(width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> the same."""
        x_nhwc = F.gelu(self.norm1(self.proj_in(x_nhwc)))
        mixed = F.gelu(self.along_width(x_nhwc)) + F.gelu(self.along_height(x_nhwc))
        return self.proj(self.norm2(mixed))


class AxialBlock(MixerBlock):
    """The block with norms over whole maps (paper, Figure 2)."""

    norm = GroupNormNHWC


class ASMLP(MlpPyramid[ASMLPSizes]):
    """4x4 patches, four stages of `AxialBlock`s with 2x2 mergings between them, and norms over whole maps.

    The authors train with drop path rates of 0.2, 0.3 and 0.5.
    """

    def build(
        self,
        sizes: ASMLPSizes,
        in_chans: int,
        drop_path_rates: Sequence[Sequence[float]],
        spacings: Sequence[Spacing],
    ) -> tuple[nn.Module, nn.ModuleList, nn.Module]:
        stages, size = [], sizes.shift_size
        for s, (width, ratio) in enumerate(zip(sizes.widths, sizes.mlp_ratios, strict=True)):
            merging = PatchMerging(width // 2, GroupNormNHWC(2 * width), spacings[s]) if s else nn.Identity()
            dilation = spacings[s].dilation
            blocks = [AxialBlock(width, AxialMixer(width, size, dilation), ratio, rate) for rate in drop_path_rates[s]]
            stages.append(Stage(merging, blocks, spacings[s].reduction))
        stem = PatchStem(in_chans, sizes.widths[0], GroupNormNHWC(sizes.widths[0]))
        return stem, nn.ModuleList(stages), GroupNormNHWC(width)

    def init_weights(self) -> None:
        """Only the head's: the other layers are 1x1 convolutions in the authors' code and start as those do."""
        self.head.apply(init_linear)


register_models(ASMLP, SIZES, options=("shift_size",))
