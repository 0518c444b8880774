"""ActiveMLP xT, T, S, B and L, and the small `activemlp_nano` of this package.

Paper: Wei, Zhang, Lan, Lu, Chen, "Active Token Mixer", AAAI 2023, arXiv 2203.06108. Their code:
github.com/microsoft/TokenMixers (MIT), in "Active Token Mixer". Written from the formulas; values equal those of the
authors' code. It is CycleMLP with learned offsets: the same widths and depths, and staircases replaced by `ActiveFC`.
Three things differ from the authors': activations stay channels-last, reading at offsets interpolates along one axis
instead of deforming a convolution, and the stem takes any number of image channels (theirs ignores `in_chans`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, NamedTuple

import torch
import torch.fx
from timm.layers import Mlp
from timm.models import checkpoint
from torch import Tensor, nn

from cyclemlp.models.cyclemlp import ConvStem, WeightedMixer
from cyclemlp.models.pyramid import (
    ChannelsLast,
    MixerBlock,
    MlpPyramid,
    PyramidSizes,
    Spacing,
    Stage,
    conv_downsample,
    init_linear,
)
from cyclemlp.models.registration import register_models
from cyclemlp.ops import ActiveFC, read_places
from cyclemlp.ops.places import Grid, Taps


@dataclass(frozen=True)
class ActiveMLPSizes(PyramidSizes):
    """The sizes of one model; every stage has two blocks at least."""

    interval: int = 2
    """Each stage computes new offsets in every `interval`-th block, but never in its last."""
    shares: tuple[int, int, int, int] = (2, 4, 4, 8)
    """Neighbouring channels with one offset in common, for each stage."""


SIZES = {
    # This package's own, with the widths and depths of cyclemlp_nano: for small data, small machines and tests.
    "activemlp_nano": ActiveMLPSizes((32, 64, 160, 256), (2, 2, 4, 2)),
    # Millions of parameters and billions of FLOPs as published: 15 and 2.2, 27 and 4.0, 39 and 6.9, 52 and 10.1, 76 and
    # 12.4. Widths, depths and ratios are those of CycleMLP B1 to B5.
    "activemlp_xtiny": ActiveMLPSizes((64, 128, 320, 512), (2, 2, 4, 2)),
    "activemlp_tiny": ActiveMLPSizes((64, 128, 320, 512), (2, 3, 10, 3)),
    "activemlp_small": ActiveMLPSizes((64, 128, 320, 512), (3, 4, 18, 3), (8, 8, 4, 4), interval=6),
    "activemlp_base": ActiveMLPSizes((64, 128, 320, 512), (3, 8, 27, 3), (8, 8, 4, 4), interval=6),
    "activemlp_large": ActiveMLPSizes((96, 192, 384, 768), (3, 4, 24, 3), interval=6),
}


torch.fx.wrap("read_places")  # one node of a symbolic trace, because it looks at shapes


class Places(NamedTuple):
    """Where the blocks read that share offsets."""

    along_width: Taps | Grid
    along_height: Taps | Grid


class Offsets(nn.Module):
    """Offsets from the features: how far each group of channels looks along the width, and along the height."""

    def __init__(self, width: int, share: int, dilation: int = 1) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, 2 * width // share)

    def forward(self, x_nhwc: Tensor) -> Places:
        """(batch, height, width, channels) -> places for both axes."""
        along_width, along_height = self.linear(self.norm(x_nhwc)).chunk(2, -1)
        return Places(
            read_places(along_width, "width", self.dilation), read_places(along_height, "height", self.dilation)
        )


class ActiveMixer(WeightedMixer):
    """Token mixing: channels read at learned places along both axes, and a plain channel FC, weighted and projected.

    h = along_width(x)    w = along_height(x)    c = along_channels(x)    y = mixed(h, w, c)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.along_width = ActiveFC(width, width)
        self.along_height = ActiveFC(width, width)
        self.along_channels = nn.Linear(width, width, bias=False)
        self.reweight = Mlp(width, width // 4, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_nhwc: Tensor, places: Places) -> Tensor:
        """(batch, height, width, channels) -> the same."""
        h, w = self.along_width(x_nhwc, places.along_width), self.along_height(x_nhwc, places.along_height)
        return self.mixed(h, w, self.along_channels(x_nhwc))


class ActiveBlock(MixerBlock):
    """Token mixer and channel MLP; `offsets` in the blocks that compute new ones, for themselves and those after."""

    def __init__(self, width: int, mlp_ratio: int, drop_path: float, offsets: Offsets | None) -> None:
        super().__init__(width, ActiveMixer(width), mlp_ratio, drop_path)
        self.offsets = offsets

    def forward(self, x_nhwc: Tensor, places: Places) -> Tensor:  # type: ignore[override]
        """(batch, height, width, channels) and places -> the same."""
        x_nhwc = x_nhwc + self.drop_path(self.token_mixer(self.norm1(x_nhwc), places))
        return x_nhwc + self.drop_path(self.channel_mlp(self.norm2(x_nhwc)))


class ActiveStage(Stage):
    """A stage whose blocks share offsets; `position`, a depthwise convolution, is added before they are computed."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module], width: int, spacing: Spacing) -> None:
        super().__init__(downsample, blocks, spacing.reduction)
        dilation = spacing.dilation
        self.position = ChannelsLast(nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, groups=width))

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) of the previous stage -> the same of this stage."""
        x_nhwc = self.downsample(x_nhwc)
        places: Places | None = None
        for block in self.blocks:
            assert isinstance(block, ActiveBlock)
            if block.offsets is not None:
                x_nhwc = x_nhwc + self.position(x_nhwc)
                places = block.offsets(x_nhwc)
            keep = not self.grad_checkpointing or not torch.is_grad_enabled()
            x_nhwc = block(x_nhwc, places) if keep else checkpoint(block, x_nhwc, places)
        return x_nhwc


class ActiveMLP(MlpPyramid[ActiveMLPSizes]):
    """A 7x7 stem, four stages of `ActiveBlock`s with 3x3 convolutions of stride 2 between them."""

    def build(
        self,
        sizes: ActiveMLPSizes,
        in_chans: int,
        drop_path_rates: Sequence[Sequence[float]],
        spacings: Sequence[Spacing],
    ) -> tuple[nn.Module, nn.ModuleList, nn.Module]:
        widths, stages = sizes.widths, []
        for s, (width, share, ratio) in enumerate(zip(widths, sizes.shares, sizes.mlp_ratios, strict=True)):
            downsample = conv_downsample(widths[s - 1], width, spacings[s]) if s else nn.Identity()
            blocks = []
            for b, rate in enumerate(drop_path_rates[s]):
                makes_offsets = b % sizes.interval == 0 and b < sizes.depths[s] - 1
                offsets = Offsets(width, share, spacings[s].dilation) if makes_offsets else None
                blocks.append(ActiveBlock(width, ratio, rate, offsets))
            stages.append(ActiveStage(downsample, blocks, width, spacings[s]))
        return ConvStem(in_chans, widths[0]), nn.ModuleList(stages), nn.LayerNorm(width)

    def init_weights(self) -> None:
        """As in the authors' code: linear layers as in CycleMLP, convolutions by the values that go out of them."""
        self.apply(init_linear)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=sqrt(2 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that assign each parameter to a layer, for layer-wise learning rates."""
        patterns = super().group_matcher(coarse)
        if not coarse:
            patterns["blocks"].insert(0, (r"^stages\.(\d+)\.position", (0,)))
        return patterns

    def no_weight_decay(self) -> set[str]:
        """The depthwise convolutions, as in the authors' code."""
        return {name for name, _ in self.named_parameters() if ".position." in name}


register_models(ActiveMLP, SIZES, first_conv="stem")
