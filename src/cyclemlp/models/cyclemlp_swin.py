"""CycleMLP-T, -S and -B: a reconstruction from what was published about them.

The authors of CycleMLP (arXiv 2107.10224, github.com/ShoufaChen/CycleMLP) released the accuracies of these three (81.3,
82.9, 83.4), their counts (28 M and 4.4 G, 50 M and 8.5 G, 88 M and 15.2 G) and weight files, but never the code; the
files could not be downloaded when this was written.

What the counts determine, given Swin's widths (96 or 128, doubling) and depths (2-2-6-2, 2-2-18-2): a 4x4 stem and
2x2 mergings (7x7 and 3x3 convolutions as in B1-B5 are too large), and four width x width maps in a block. Three
branches and an output projection, without the learned re-weighting of B1-B5, have 28.26, 49.55 and 87.69 M parameters;
with the re-weighting the smallest has 30.4 M.

What they leave open was chosen here: the step size (`stepsize`, 3 as in B1-B5); norms after the stem and in the
mergings (as in Swin) and which maps have biases (as in B1-B5), both below the precision of the published counts; and
whether the fourth map is the plain channel branch (so here, as in B1-B5) or a layer before the shifts (as in AS-MLP,
which has the same counts).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from cyclemlp.models.cyclemlp import CycleBlock, CycleMLPSizes, CycleStages
from cyclemlp.models.patches import PatchMerging, PatchStem, doubling
from cyclemlp.models.pyramid import MlpPyramid, Spacing, Stage
from cyclemlp.models.registration import register_models
from cyclemlp.ops import CycleFC

SIZES = {
    "cyclemlp_tiny": CycleMLPSizes(doubling(96), (2, 2, 6, 2)),
    "cyclemlp_small": CycleMLPSizes(doubling(96), (2, 2, 18, 2)),
    "cyclemlp_base": CycleMLPSizes(doubling(128), (2, 2, 18, 2)),
}


class SummedCycleMixer(nn.Module):
    """Token mixing: staircases along both axes and a plain channel FC, summed and projected."""

    def __init__(self, width: int, stepsize: int = 3, dilation: int = 1) -> None:
        super().__init__()
        self.along_width = CycleFC(width, width, stepsize=(1, stepsize), dilation=dilation)
        self.along_height = CycleFC(width, width, stepsize=(stepsize, 1), dilation=dilation)
        self.along_channels = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> the same."""
        mixed = self.along_width(x_nhwc) + self.along_height(x_nhwc) + self.along_channels(x_nhwc)
        return self.proj(mixed)


class CycleSwinMLP(MlpPyramid[CycleMLPSizes]):
    """4x4 patches, then four stages of `CycleBlock`s of summed branches with 2x2 mergings between them."""

    layout_note = (
        ". This network is a reconstruction, since its authors published no code: "
        "if the file is theirs, these differences are how the two differ"
    )

    def build(
        self,
        sizes: CycleMLPSizes,
        in_chans: int,
        drop_path_rates: Sequence[Sequence[float]],
        spacings: Sequence[Spacing],
    ) -> tuple[nn.Module, nn.ModuleList, nn.Module]:
        stages, step = [], sizes.stepsize
        for s, (width, ratio) in enumerate(zip(sizes.widths, sizes.mlp_ratios, strict=True)):
            merging = PatchMerging(width // 2, nn.LayerNorm(2 * width), spacings[s]) if s else nn.Identity()
            blocks = [
                CycleBlock(width, SummedCycleMixer(width, step, spacings[s].dilation), ratio, rate)
                for rate in drop_path_rates[s]
            ]
            stages.append(Stage(merging, blocks, spacings[s].reduction))
        stem = PatchStem(in_chans, sizes.widths[0], nn.LayerNorm(sizes.widths[0]), step)
        return stem, CycleStages(stages), nn.LayerNorm(width)


register_models(CycleSwinMLP, SIZES, options=("stepsize",))
