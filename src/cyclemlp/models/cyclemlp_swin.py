"""CycleMLP-T, -S and -B: a reconstruction from what was published about them.

The authors of CycleMLP (arXiv 2107.10224, github.com/ShoufaChen/CycleMLP) released the accuracies of these three (81.3,
82.9, 83.4), their counts (28 M and 4.4 G, 50 M and 8.5 G, 88 M and 15.2 G) and weight files, but never the code; the
files could not be read when this was written.

Determined by the counts, given Swin's widths (96 or 128, doubling) and depths (2-2-6-2, 2-2-18-2): a 4x4 stem and
2x2 mergings (7x7 and 3x3 convolutions as in B1-B5 are too large), and four width x width maps a block. Three
branches without the learned re-weighting of B1-B5 and an output projection fit: 28.26, 49.55 and 87.69 M; with the
re-weighting it would be 30.4 M and more.

Not determined, chosen here: the step size (`stepsize`, 3 as in B1-B5); norms after the stem and in the mergings (as in
Swin) and which maps have biases (as in B1-B5), both beyond the printed digits; whether the fourth map is the plain
channel branch (taken here, as in B1-B5) or a layer before the shifts (as in AS-MLP, which has the same counts).
"""

from dataclasses import dataclass, replace
from typing import Any

from timm.layers import calculate_drop_path_rates
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from cyclemlp.models.cyclemlp import CycleBlock, CycleStages
from cyclemlp.models.patches import PatchMerging, PatchStem
from cyclemlp.models.pyramid import MlpPyramid, Stage, init_linear
from cyclemlp.models.registration import build, default_cfg
from cyclemlp.ops import CycleFC


@dataclass(frozen=True)
class CycleSwinSizes:
    """The sizes of one model; widths double from stage to stage."""

    width: int
    depths: tuple[int, int, int, int]
    mlp_ratio: int = 4
    stepsize: int = 3
    """Length of the staircase along each axis, in positions; odd. Not published: an option."""


SIZES = {
    "cyclemlp_tiny": CycleSwinSizes(96, (2, 2, 6, 2)),
    "cyclemlp_small": CycleSwinSizes(96, (2, 2, 18, 2)),
    "cyclemlp_base": CycleSwinSizes(128, (2, 2, 18, 2)),
}


class SummedCycleMixer(nn.Module):
    """Token mixing: staircases along both axes and a plain channel FC, summed and projected."""

    def __init__(self, width: int, stepsize: int = 3) -> None:
        super().__init__()
        self.along_width = CycleFC(width, width, stepsize=(1, stepsize))
        self.along_height = CycleFC(width, width, stepsize=(stepsize, 1))
        self.along_channels = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> the same."""
        mixed = self.along_width(x_nhwc) + self.along_height(x_nhwc) + self.along_channels(x_nhwc)
        return self.proj(mixed)


class SummedCycleBlock(CycleBlock):
    """The block of B1-B5 with branches that are summed instead of weighted."""

    mixer = SummedCycleMixer


class CyclePatchStem(PatchStem):
    """A `PatchStem` that takes part in the exact inference form."""

    def __init__(self, in_chans: int, width: int, stepsize: int) -> None:
        super().__init__(in_chans, width, nn.LayerNorm(width))
        self.stepsize = stepsize

    def fuse(self) -> nn.Module:
        """Called by timm's `reparameterize_model`, together with that of the stages."""
        from cyclemlp.models.forms.fused import fuse_stem  # the forms import the models

        return fuse_stem(self, self.stepsize)


class CycleSwinMLP(MlpPyramid):
    """4x4 patches, then four stages of `SummedCycleBlock`s with 2x2 mergings between them.

    Args:
        sizes: width, depths, ratio and step size.
        num_classes, in_chans, global_pool, drop_rate: as timm's.
        drop_path_rate: of the last block; earlier ones grow linearly from 0.
    """

    layout_note = (
        ". This network is a reconstruction, since its authors published no code: "
        "if the file is theirs, these differences are how the two differ"
    )

    def __init__(
        self,
        sizes: CycleSwinSizes,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        widths = [sizes.width * 2**s for s in range(4)]
        rates = calculate_drop_path_rates(drop_path_rate, list(sizes.depths), stagewise=True)
        stages = []
        for s, width in enumerate(widths):
            merging = PatchMerging(widths[s - 1], nn.LayerNorm(4 * widths[s - 1])) if s else nn.Identity()
            blocks = [SummedCycleBlock(width, sizes.mlp_ratio, rate, sizes.stepsize) for rate in rates[s]]
            stages.append(Stage(merging, blocks))
        stem, norm = CyclePatchStem(in_chans, widths[0], sizes.stepsize), nn.LayerNorm(widths[-1])
        super().__init__(stem, stages, widths, norm, num_classes, in_chans, global_pool, drop_rate)
        self.stages = CycleStages(self.stages)
        self.apply(init_linear)


default_cfgs = generate_default_cfgs({f"{name}.in1k": default_cfg(name) for name in SIZES})


def _create(name: str, pretrained: bool, kwargs: dict[str, Any]) -> nn.Module:
    sizes = SIZES[name]
    if "stepsize" in kwargs:
        sizes = replace(sizes, stepsize=kwargs.pop("stepsize"))
    return build(CycleSwinMLP, name, pretrained, {"sizes": sizes, **kwargs})


@register_model
def cyclemlp_tiny(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CycleMLP-T, reconstructed: 28.26 M parameters (published: 28 M), 4.4 G FLOPs."""
    return _create("cyclemlp_tiny", pretrained, kwargs)


@register_model
def cyclemlp_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CycleMLP-S, reconstructed: 49.55 M parameters (published: 50 M), 8.5 G FLOPs."""
    return _create("cyclemlp_small", pretrained, kwargs)


@register_model
def cyclemlp_base(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CycleMLP-B, reconstructed: 87.69 M parameters (published: 88 M), 15.2 G FLOPs."""
    return _create("cyclemlp_base", pretrained, kwargs)
