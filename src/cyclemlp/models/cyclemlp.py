"""CycleMLP B1-B5, and the small `cyclemlp_nano` of this package.

Paper: Chen, Xie, Ge, Chen, Liang, Luo, "CycleMLP: A MLP-like Architecture for Dense Prediction", ICLR 2022,
arXiv 2107.10224. Their code: github.com/ShoufaChen/CycleMLP (MIT). Written anew from the paper's formulas; values equal
those of the authors' code. What differs: activations stay channels-last, CycleFC moves channels instead of deforming a
convolution, and names say which axis moves (the authors' `sfc_h` moves along the width: `along_width` here).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.layers import DropPath, Mlp, calculate_drop_path_rates
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from cyclemlp.errors import ConfigError
from cyclemlp.models.branches import BranchedMixer
from cyclemlp.models.pyramid import ChannelsLast, MlpPyramid, Stage, init_linear
from cyclemlp.models.registration import build, default_cfg
from cyclemlp.ops import CycleFC


@dataclass(frozen=True)
class CycleMLPSizes:
    """The sizes of one model (paper, Table 1)."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    mlp_ratios: tuple[int, int, int, int] = (4, 4, 4, 4)
    stepsize: int = 3
    """Length of the staircase along each axis, in positions; odd."""
    branches: tuple[str, ...] = ()
    """Pseudo-kernels in place of the three branches of `stepsize`, for ablations; see `branches.py`."""


SIZES = {
    "cyclemlp_nano": CycleMLPSizes((32, 64, 160, 256), (2, 2, 4, 2)),
    "cyclemlp_b1": CycleMLPSizes((64, 128, 320, 512), (2, 2, 4, 2)),
    "cyclemlp_b2": CycleMLPSizes((64, 128, 320, 512), (2, 3, 10, 3)),
    "cyclemlp_b3": CycleMLPSizes((64, 128, 320, 512), (3, 4, 18, 3), (8, 8, 4, 4)),
    "cyclemlp_b4": CycleMLPSizes((64, 128, 320, 512), (3, 8, 27, 3), (8, 8, 4, 4)),
    "cyclemlp_b5": CycleMLPSizes((96, 192, 384, 768), (3, 4, 24, 3)),
}


class CycleMixer(nn.Module):
    """Token mixing: staircases along both axes and a plain channel FC, weighted per image and channel, projected.

        h = along_width(x)    w = along_height(x)    c = along_channels(x)
        a = softmax over the branches of reweight(mean over positions of (h + w + c))
        y = proj(a_h * h + a_w * w + a_c * c)

    The published text leaves out the weights a and the projection; the authors' code and parameter counts have both.
    """

    def __init__(self, width: int, stepsize: int = 3) -> None:
        super().__init__()
        self.stepsize = stepsize
        self.along_width = CycleFC(width, width, stepsize=(1, stepsize))
        self.along_height = CycleFC(width, width, stepsize=(stepsize, 1))
        self.along_channels = nn.Linear(width, width, bias=False)
        self.reweight = Mlp(width, width // 4, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> the same."""
        h, w, c = self.along_width(x_nhwc), self.along_height(x_nhwc), self.along_channels(x_nhwc)
        total = h + w + c
        # Statistics in float32 at least: a half-precision sum over many positions loses digits.
        mean_nc = total.mean((1, 2), dtype=_at_least_float32(total)).to(total.dtype)
        a_h, a_w, a_c = self.branch_weights(mean_nc).unbind(-1)
        return self.proj(h * a_h + w * a_w + c * a_c)

    def branch_weights(self, mean_nc: Tensor) -> Tensor:
        """Mean over positions (batch, channels) -> (batch, 1, 1, channels, 3) that sum to 1 over the last axis."""
        logits = self.reweight(mean_nc).unflatten(-1, (-1, 3))[:, None, None]
        return logits.softmax(-1, dtype=_at_least_float32(logits)).to(logits.dtype)


class CycleBlock(nn.Module):
    """Token mixer and channel MLP, each after a LayerNorm and inside a residual connection (paper, Figure 3)."""

    mixer: type[nn.Module] = CycleMixer

    def __init__(
        self, width: int, mlp_ratio: int, drop_path: float, stepsize: int, branches: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.token_mixer = BranchedMixer(width, branches) if branches else self.mixer(width, stepsize)
        self.norm2 = nn.LayerNorm(width)
        self.channel_mlp = Mlp(width, mlp_ratio * width)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> the same."""
        x_nhwc = x_nhwc + self.drop_path(self.token_mixer(self.norm1(x_nhwc)))
        return x_nhwc + self.drop_path(self.channel_mlp(self.norm2(x_nhwc)))


class ConvStem(nn.Conv2d):
    """Overlapping 7x7 patches at stride 4, without a norm; images in, channels-last out."""

    def __init__(self, in_chans: int, width: int) -> None:
        super().__init__(in_chans, width, 7, stride=4, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_chans, height, width) -> (batch, height', width', channels), height' = (height + 1) // 4."""
        return super().forward(x).permute(0, 2, 3, 1).contiguous()


class CycleStem(ConvStem):
    """A `ConvStem` that takes part in the exact inference form."""

    def __init__(self, in_chans: int, width: int, stepsize: int) -> None:
        super().__init__(in_chans, width)
        self.stepsize = stepsize

    def fuse(self) -> nn.Module:
        """Called by timm's `reparameterize_model`, together with that of the stages."""
        from cyclemlp.models.forms.fused import fuse_stem  # the forms import the models

        return fuse_stem(self, self.stepsize)


class CycleStages(nn.ModuleList):
    """The four stages; one container, because their exact inference form is made for all of them together."""

    def fuse(self) -> nn.ModuleList:
        """Called by timm's `reparameterize_model`."""
        from cyclemlp.models.forms.fused import fuse_stages

        return fuse_stages(self)


class CycleMLP(MlpPyramid):
    """The B family of the paper: convolutions of stride 4, 2, 2, 2 between four stages of `CycleBlock`s.

    Args:
        sizes: widths, depths, ratios, step size, and branches other than the usual ones.
        num_classes, in_chans, global_pool, drop_rate: as timm's.
        drop_path_rate: of the last block; earlier ones grow linearly from 0.
    """

    def __init__(
        self,
        sizes: CycleMLPSizes,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        widths, depths = sizes.widths, sizes.depths
        rates = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        stages = []
        for s, width in enumerate(widths):
            conv = nn.Conv2d(widths[s - 1], width, 3, stride=2, padding=1) if s else None
            ratio, step = sizes.mlp_ratios[s], sizes.stepsize
            blocks = [CycleBlock(width, ratio, rate, step, sizes.branches) for rate in rates[s]]
            stages.append(Stage(ChannelsLast(conv) if conv else nn.Identity(), blocks))
        plain = bool(sizes.branches)  # the exact inference form is that of the three branches alone
        stem = ConvStem(in_chans, widths[0]) if plain else CycleStem(in_chans, widths[0], sizes.stepsize)
        norm = nn.LayerNorm(widths[-1])
        super().__init__(stem, stages, widths, norm, num_classes, in_chans, global_pool, drop_rate)
        if not plain:
            self.stages = CycleStages(self.stages)
        self.apply(init_linear)


def _at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


default_cfgs = generate_default_cfgs(
    {f"{name}.in1k" if name != "cyclemlp_nano" else name: default_cfg(name, "stem") for name in SIZES}
)


def _create(name: str, pretrained: bool, kwargs: dict[str, Any]) -> nn.Module:
    sizes = SIZES[name]
    if "stepsize" in kwargs and "branches" in kwargs:
        raise ConfigError("stepsize and branches were both given: branches such as 1x5 5x1 1x1 say the step size")
    if "stepsize" in kwargs:
        sizes = replace(sizes, stepsize=kwargs.pop("stepsize"))
    if "branches" in kwargs:
        sizes = replace(sizes, branches=tuple(kwargs.pop("branches")))
    return build(CycleMLP, name, pretrained, {"sizes": sizes, **kwargs})


@register_model
def cyclemlp_nano(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CycleMLP of about 4 M parameters, this package's own: for small data, small machines and tests."""
    return _create("cyclemlp_nano", pretrained, kwargs)


@register_model
def cyclemlp_b1(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CycleMLP-B1 (paper, Table 1): 15.2 M parameters, 2.1 G FLOPs."""
    return _create("cyclemlp_b1", pretrained, kwargs)


@register_model
def cyclemlp_b2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CycleMLP-B2 (paper, Table 1): 26.8 M parameters, 3.9 G FLOPs."""
    return _create("cyclemlp_b2", pretrained, kwargs)


@register_model
def cyclemlp_b3(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CycleMLP-B3 (paper, Table 1): 38.4 M parameters, 6.9 G FLOPs."""
    return _create("cyclemlp_b3", pretrained, kwargs)


@register_model
def cyclemlp_b4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CycleMLP-B4 (paper, Table 1): 51.8 M parameters, 10.1 G FLOPs."""
    return _create("cyclemlp_b4", pretrained, kwargs)


@register_model
def cyclemlp_b5(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CycleMLP-B5 (paper, Table 1): 75.7 M parameters, 12.3 G FLOPs."""
    return _create("cyclemlp_b5", pretrained, kwargs)
