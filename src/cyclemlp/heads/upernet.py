"""UperNet, the head of the ADE20K tables of Swin and AS-MLP, on any pyramid, and the auxiliary head of its training.

Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018, section 3; pooling module from Zhao et
al., "Pyramid Scene Parsing Network", CVPR 2017; sizes as in AS-MLP's configurations (pool scales 1, 2, 3, 6, 512
channels, auxiliary head of 256 on the third map).
"""

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from cyclemlp.heads.pyramid import resized

POOL_SCALES = (1, 2, 3, 6)


class UperNet(nn.Module):
    """Pooled context on the coarsest map, a feature pyramid above it, all levels joined at stride 4 and classified.

    In training, the maps pooled to one position leave BatchNorm a single value per channel and image, so a batch needs
    two images or more.

    Args:
        in_channels: of the maps at strides 4, 8, 16, 32.
        num_classes: logits per position.
        width: channels of the pooled maps and of the pyramid, 512 in the papers.
        dropout: on whole channels before the classifier (mmsegmentation's 0.1).
    """

    def __init__(self, in_channels: list[int], num_classes: int, width: int = 512, dropout: float = 0.1) -> None:
        super().__init__()
        *finer, coarsest = in_channels
        self.pooled = nn.ModuleList(Conv2dNormActivation(coarsest, width, 1) for _ in POOL_SCALES)
        self.context = Conv2dNormActivation(coarsest + len(POOL_SCALES) * width, width, 3)
        self.laterals = nn.ModuleList(Conv2dNormActivation(channels, width, 1) for channels in finer)
        self.outputs = nn.ModuleList(Conv2dNormActivation(width, width, 3) for _ in finer)
        self.join = Conv2dNormActivation(len(in_channels) * width, width, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """NCHW maps, fine to coarse -> logits (batch, classes, height / 4, width / 4)."""
        *finer, coarsest = maps
        levels = [self._with_context(coarsest)]
        for lateral, each in zip(reversed(self.laterals), reversed(finer), strict=True):
            levels.append(lateral(each) + resized(levels[-1], each.shape[-2:]))
        # The coarsest level has had its convolution; the others get theirs after the top-down sums.
        coarse, *rest = levels
        rest = [output(level) for output, level in zip(reversed(self.outputs), rest, strict=True)]
        joined = torch.cat([resized(level, maps[0].shape[-2:]) for level in reversed([coarse, *rest])], dim=1)
        return self.classifier(self.dropout(self.join(joined)))

    def _with_context(self, coarsest: Tensor) -> Tensor:
        pooled = [
            resized(convolve(adaptive_average(coarsest, scale)), coarsest.shape[-2:])
            for convolve, scale in zip(self.pooled, POOL_SCALES, strict=True)
        ]
        return self.context(torch.cat([coarsest, *pooled], dim=1))


class AuxiliaryHead(nn.Module):
    """One convolution and a classifier on the map at stride 16: a second loss for the middle of the backbone.

    Only training uses it (Zhao et al., 2017, section 3.3); predictions do not depend on it.

    Args:
        in_channels: of the maps at strides 4, 8, 16, 32.
        num_classes: logits per position.
        width: of the convolution, 256 in the papers.
        dropout: on whole channels before the classifier.
    """

    def __init__(self, in_channels: list[int], num_classes: int, width: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.convolve = Conv2dNormActivation(in_channels[-2], width, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """NCHW maps, fine to coarse -> logits (batch, classes, height / 16, width / 16)."""
        return self.classifier(self.dropout(self.convolve(maps[-2])))


def adaptive_average(x: Tensor, size: int) -> Tensor:
    """Means over `size` x `size` bins of a map (N, C, H, W): `adaptive_avg_pool2d`, as two products of matrices.

    Exporters know the library's only for maps of a fixed size, and its backward pass on a GPU adds in no fixed order.
    """
    height, width = x.shape[-2:]
    rows, columns = (bins(edge, size, x.dtype, x.device) for edge in (height, width))
    return torch.einsum("nchw,ih,jw->ncij", x, rows, columns)


def bins(length: int, size: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Weights (size, length): bin i is the mean of positions floor(i length / size) to ceil((i + 1) length / size)."""
    place = torch.arange(length, device=device)
    index = torch.arange(size, device=device)[:, None]
    inside = (place >= index * length // size) & (place < ((index + 1) * length + size - 1) // size)
    weights = inside.to(dtype)
    return weights / weights.sum(1, keepdim=True)
