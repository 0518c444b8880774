"""A backbone as dense heads want it: maps at fixed strides, normalised, for every image size."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.models.backbones import create_backbone

STRIDE = 32
"""Of the last map; images are padded to at least this many pixels a side."""

# These give residual streams as they are; their authors put a LayerNorm on each map before a dense head.
_UNNORMALISED = ("cyclemlp_", "asmlp_", "swin_", "convnext")
# These take multiples of the stride alone, or lose rows otherwise; the others take any size.
_NEEDS_MULTIPLES = ("swin_", "convnext")


class PyramidBackbone(nn.Module):
    """A timm backbone whose maps pass a LayerNorm where the network leaves them unnormalised.

    Args:
        name: timm's name of the backbone.
        out_indices: which of the strides 4, 8, 16, 32 to give.
        in_chans, drop_path_rate: as timm's.
    """

    def __init__(
        self, name: str, *, out_indices: Sequence[int] = (0, 1, 2, 3), in_chans: int = 3, drop_path_rate: float = 0.0
    ) -> None:
        super().__init__()
        trunk = create_backbone(name, in_chans=in_chans, drop_path_rate=drop_path_rate, out_indices=out_indices)
        self.trunk = trunk
        self.channels: list[int] = trunk.feature_info.channels()  # type: ignore[union-attr, operator]
        self.needs_multiples = name.startswith(_NEEDS_MULTIPLES)
        self._nhwc = "NHWC" in str(getattr(trunk, "output_fmt", "NCHW"))
        norms = name.startswith(_UNNORMALISED)
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norms else nn.Identity() for width in self.channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(batch, in_chans, height, width), padded by `pad` -> NCHW maps, fine to coarse."""
        maps = self.trunk(images)
        maps_nhwc = maps if self._nhwc else [each.permute(0, 2, 3, 1) for each in maps]
        return [norm(each).permute(0, 3, 1, 2) for norm, each in zip(self.norms, maps_nhwc, strict=True)]

    def pad(self, images: Tensor) -> Tensor:
        """Images with zeros (the mean colour) at the right and bottom, up to a size the backbone takes."""
        if torch.compiler.is_compiling():  # an exported model states its sizes instead
            return images
        height, width = (self._padded(edge) for edge in images.shape[-2:])
        return F.pad(images, (0, width - images.shape[-1], 0, height - images.shape[-2]))

    def _padded(self, edge: int) -> int:
        return math.ceil(edge / STRIDE) * STRIDE if self.needs_multiples else max(edge, STRIDE)
