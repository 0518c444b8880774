"""What all dense networks share: a backbone that returns normalised maps at fixed strides, for every image size."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.errors import ConfigError, did_you_mean
from cyclemlp.heads.network import STRIDE, SizeRule
from cyclemlp.models.backbones import create_backbone
from cyclemlp.models.forms.fused import EXPORT_SIZE, graph_form

# The maps of these are residual streams; their authors put a LayerNorm on each map before a dense head.
_UNNORMALISED = ("cyclemlp_", "activemlp_", "asmlp_", "swin_", "convnext")
# These take multiples of the stride alone, or lose rows otherwise; the others take any size.
_NEEDS_MULTIPLES = ("swin_", "convnext")


Head = TypeVar("Head")


class PyramidBackbone(nn.Module):
    """A timm backbone whose maps pass a LayerNorm where the network leaves them unnormalised.

    Args:
        name: timm's name of the backbone.
        out_indices: which of the strides 4, 8, 16, 32 to return.
        in_chans, drop_path_rate: as timm's.
    """

    def __init__(
        self, name: str, *, out_indices: Sequence[int] = (0, 1, 2, 3), in_chans: int = 3, drop_path_rate: float = 0.0
    ) -> None:
        super().__init__()
        trunk = create_backbone(name, in_chans=in_chans, drop_path_rate=drop_path_rate, out_indices=out_indices)
        self.trunk = trunk
        self.channels: list[int] = trunk.feature_info.channels()  # type: ignore[union-attr, operator]
        self.size_rule = SizeRule(STRIDE, STRIDE if name.startswith(_NEEDS_MULTIPLES) else 1)
        self._nhwc = "NHWC" in str(getattr(trunk, "output_fmt", "NCHW"))
        norms = name.startswith(_UNNORMALISED)
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norms else nn.Identity() for width in self.channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(batch, in_chans, height, width), of a size that `size_rule` allows -> NCHW maps, fine to coarse."""
        maps = self.trunk(images)
        maps_nhwc = maps if self._nhwc else [each.permute(0, 2, 3, 1) for each in maps]
        return [norm(each).permute(0, 3, 1, 2) for norm, each in zip(self.norms, maps_nhwc, strict=True)]


class PyramidNetwork(nn.Module):
    """A network on such a backbone, and what prediction and export need to know of it."""

    output_names: tuple[str, ...] = ("logits",)
    """Of the tensors that `forward` returns, in order."""

    def __init__(self, backbone: PyramidBackbone, size_rule: SizeRule) -> None:
        super().__init__()
        self.backbone = backbone
        self.size_rule = size_rule

    def pad(self, images: Tensor) -> Tensor:
        """Images with zeros (the mean colour) at the right and bottom, up to a size that the network takes."""
        if torch.compiler.is_compiling():  # an exported model states its sizes instead
            return images
        height, width = images.shape[-2:]
        return F.pad(images, (0, self.size_rule.padded(width) - width, 0, self.size_rule.padded(height) - height))

    def compiled_parts(self) -> list[nn.Module]:
        """What torch.compile should compile: parts that take tensors alone, and together are nearly all of a step."""
        return [self.backbone]

    def export_form(self, size: tuple[int, int] = (EXPORT_SIZE, EXPORT_SIZE)) -> nn.Module:
        """A copy with the same values, in the form to export, which is fastest at this height and width.

        Raises ConfigError where it cannot be exported.
        """
        return graph_form(self, size)


def head_by_name(head: str, heads: Mapping[str, Head]) -> Head:
    """The entry of a head's name. Raises ConfigError, with the nearest name, for one that is not in `heads`."""
    if head not in heads:
        raise ConfigError(f"head {head!r} is not known; allowed: {', '.join(heads)}.{did_you_mean(head, heads)}")
    return heads[head]


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (N, C, H, W) at another height and width, interpolated as in the authors' heads."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
