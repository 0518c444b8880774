"""The exact inference form of CycleMLP: `timm.utils.reparameterize_model(model)` returns it.

It gives the values of the plain form with fewer operations and fewer passes over the activations:

- token mixing is one product (`fused_mixer.py`), the projection inside it where an image has many positions;
- the residual stream has its channels grouped by offset, so that a shift copies whole slices. The weights of the stem,
  the downsampling convolutions, the norms and the MLPs are permuted accordingly; feature maps return in the old order;
- without autograd the residual stream is updated in place, products are added to it directly, and the channel MLP works
  through it in pieces that stay in the cache.

LayerNorm keeps its scale and bias: its kernel applies them at no cost (without them torch's is slower, in fact), and
the zeros that a staircase reads outside the image come after the bias.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from timm.utils import reparameterize_model
from torch import Tensor, nn

from cyclemlp.errors import ConfigError
from cyclemlp.models.cyclemlp import CycleBlock
from cyclemlp.models.forms.fused_mixer import BlendedMixer, ChannelOrder, ConstantMixer, frozen, fuse_mixer
from cyclemlp.models.forms.graph import graph_mixer
from cyclemlp.models.patches import PatchMerging, PatchStem
from cyclemlp.models.pyramid import REDUCTIONS, ChannelsLast, Stage

EXPORT_SIZE = 224
"""Edge of the images, in pixels, for which an exported graph chooses its form."""

# The channel MLP takes as many rows at a time as keep their hidden activations in the second-level cache.
CHUNK_VALUES = 2**18


class FusedBlock(nn.Module):
    """A `CycleBlock` for inference, channels in `order`."""

    def __init__(self, block: CycleBlock, order: ChannelOrder, positions: int) -> None:
        super().__init__()
        index = list(order.channels)
        self.norm1, self.norm2 = _permuted_norm(block.norm1, index), _permuted_norm(block.norm2, index)
        self.token_mixer: nn.Module = fuse_mixer(block.token_mixer, order, positions)
        first, second = block.channel_mlp.fc1, block.channel_mlp.fc2
        self.expand_rows = frozen(first.weight.t()[index])
        self.expand_bias = frozen(first.bias)
        self.reduce_rows = frozen(second.weight.t()[:, index])
        self.reduce_bias = frozen(second.bias[index])

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> the same; without autograd `x_nhwc` itself is changed."""
        in_place = not (torch.is_grad_enabled() or torch.compiler.is_compiling() or x_nhwc.is_meta)
        in_place = in_place and not torch.is_autocast_enabled(x_nhwc.device.type)
        x_nhwc = self.token_mixer(x_nhwc, self.norm1(x_nhwc), in_place)
        if not in_place:
            hidden = F.gelu(self.norm2(x_nhwc) @ self.expand_rows + self.expand_bias)
            return x_nhwc + self.reduce_bias + hidden @ self.reduce_rows
        rows = x_nhwc.view(-1, x_nhwc.shape[-1])
        for piece in torch.split(rows, max(1, CHUNK_VALUES // len(self.expand_bias))):
            hidden = torch.addmm(self.expand_bias, self.norm2(piece), self.expand_rows)
            torch.ops.aten.gelu_(hidden)
            piece.add_(self.reduce_bias).addmm_(hidden, self.reduce_rows)
        return x_nhwc


class FusedStage(Stage):
    """A `Stage` whose activations have their channels in `order`; `features` returns them in the model's order."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module], order: ChannelOrder) -> None:
        super().__init__(downsample, blocks)
        self.register_buffer("places", torch.tensor(order.places), persistent=False)
        self.places: Tensor

    def features(self, x_nhwc: Tensor) -> Tensor:
        """The stage's output with the channels in the model's order."""
        return x_nhwc.index_select(-1, self.places)


class FusedStem(nn.Module):
    """A convolution from images to channels-last activations in the first stage's order."""

    def __init__(self, conv: nn.Conv2d, order: ChannelOrder) -> None:
        super().__init__()
        self.conv = _permuted_conv(conv, range(conv.in_channels), order.channels)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_chans, height, width) -> (batch, height', width', channels)."""
        return self.conv(x).permute(0, 2, 3, 1).contiguous()


def graph_form(model: nn.Module, image_size: int = EXPORT_SIZE, batch: int = 1) -> nn.Module:
    """The form to export: the values of `model`, which is not changed, in a graph that runtimes execute fastest.

    Args:
        model: in eval mode, or fused already; for backbones without a fused form a copy is returned.
        image_size: edge in pixels for which the graph is fastest; it is exact for any size.
        batch: number of images for which it is fastest; likewise exact for any.

    Raises:
        ConfigError: the model is in training mode.
    """
    form: nn.Module = reparameterize_model(model)
    for stages in [module for module in form.modules() if isinstance(module, nn.ModuleList)]:
        for stage, reduction in zip(stages, REDUCTIONS, strict=False):
            for block in stage.blocks if isinstance(stage, FusedStage) else ():
                if isinstance(block, FusedBlock) and isinstance(block.token_mixer, BlendedMixer | ConstantMixer):
                    block.token_mixer = graph_mixer(block.token_mixer, (image_size // reduction) ** 2, batch)
    return form.eval()


def fuse_stem(stem: nn.Conv2d | PatchStem, stepsize: int) -> nn.Module:
    """The stem that belongs to stages fused with this step size.

    Raises:
        ConfigError: the model is in training mode.
    """
    _check_eval(stem)
    conv = stem if isinstance(stem, nn.Conv2d) else stem.conv
    order = ChannelOrder.of(conv.out_channels, stepsize)
    if isinstance(stem, nn.Conv2d):
        return FusedStem(conv, order)
    patches = PatchStem(conv.in_channels, conv.out_channels, _permuted_norm(stem.norm, order.channels))
    patches.conv = _permuted_conv(conv, range(conv.in_channels), order.channels)
    return patches.eval()


def fuse_stages(stages: Iterable[nn.Module]) -> nn.ModuleList:
    """The stages in their exact inference form.

    Raises:
        ConfigError: the model is in training mode.
    """
    fused: list[nn.Module] = []
    before: ChannelOrder | None = None
    for stage, reduction in zip(stages, REDUCTIONS, strict=False):
        assert isinstance(stage, Stage)
        _check_eval(stage)
        blocks = [block for block in stage.blocks if isinstance(block, CycleBlock)]
        order = ChannelOrder.of_mixer(blocks[0].token_mixer)
        fused_blocks = [FusedBlock(block, order, (EXPORT_SIZE // reduction) ** 2) for block in blocks]
        downsample = stage.downsample if before is None else _permuted_downsample(stage.downsample, before, order)
        fused.append(FusedStage(downsample, fused_blocks, order))
        before = order
    return nn.ModuleList(fused).eval()


def _permuted_downsample(downsample: nn.Module, before: ChannelOrder, order: ChannelOrder) -> nn.Module:
    if isinstance(downsample, ChannelsLast):
        return ChannelsLast(_permuted_conv(downsample.conv, before.channels, order.channels))
    if not isinstance(downsample, PatchMerging):
        raise ConfigError(f"{type(downsample).__name__} between stages has no fused form")
    width = len(before.channels)
    inputs = [part * width + channel for part in range(4) for channel in before.channels]
    merging = PatchMerging(width, _permuted_norm(downsample.norm, inputs))
    merging.reduction.weight = frozen(downsample.reduction.weight[list(order.channels)][:, inputs])
    return merging


def _permuted_conv(conv: nn.Conv2d, inputs: Sequence[int], outputs: Sequence[int]) -> nn.Conv2d:
    permuted = nn.Conv2d(conv.in_channels, conv.out_channels, 1, device="meta")  # plain, also for a subclass
    permuted.kernel_size, permuted.stride, permuted.padding = conv.kernel_size, conv.stride, conv.padding
    weight = conv.weight.detach()[list(outputs)][:, list(inputs)]
    # Activations are channels-last; weights in that format save a reordering in every call.
    permuted.weight = frozen(weight, memory_format=torch.channels_last)
    permuted.bias = None if conv.bias is None else frozen(conv.bias[list(outputs)])
    return permuted


def _permuted_norm(norm: nn.Module, channels: Sequence[int]) -> nn.LayerNorm:
    assert isinstance(norm, nn.LayerNorm)
    permuted = nn.LayerNorm(norm.normalized_shape, eps=norm.eps, device="meta")
    permuted.weight, permuted.bias = frozen(norm.weight[list(channels)]), frozen(norm.bias[list(channels)])
    return permuted


def _check_eval(module: nn.Module) -> None:
    if module.training:
        raise ConfigError("a model in training mode has no fused form: call model.eval() before reparameterize_model")
