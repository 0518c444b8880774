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
from cyclemlp.models.cyclemlp import CycleBlock, CycleMixer
from cyclemlp.models.cyclemlp_swin import SummedCycleMixer
from cyclemlp.models.forms.fused_mixer import BlendedMixer, ChannelOrder, ConstantMixer, choose_form, frozen
from cyclemlp.models.patches import PatchMerging, PatchStem
from cyclemlp.models.pyramid import ChannelsLast, Stage, Stem
from cyclemlp.ops.shift import is_recorded

EXPORT_SIZE = 224
"""Edge of the images, in pixels, for which an exported graph chooses its form."""

# The channel MLP takes as many rows at a time as keep their hidden activations in the second-level cache.
CHUNK_VALUES = 2**18


class FusedBlock(nn.Module):
    """A `CycleBlock` for inference, channels in `order`."""

    def __init__(self, block: CycleBlock, order: ChannelOrder) -> None:
        super().__init__()
        index, mixer = list(order.channels), block.token_mixer
        self.norm1, self.norm2 = _permuted_norm(block.norm1, index), _permuted_norm(block.norm2, index)
        self.token_mixer: nn.Module
        if isinstance(mixer, SummedCycleMixer):
            self.token_mixer = ConstantMixer(mixer, order)
        else:
            assert isinstance(mixer, CycleMixer)
            self.token_mixer = BlendedMixer(mixer, order)
        first, second = block.channel_mlp.fc1, block.channel_mlp.fc2
        self.expand_rows, self.expand_bias = frozen(first.weight.t()[index]), frozen(first.bias)
        self.reduce_rows, self.reduce_bias = frozen(second.weight.t()[:, index]), frozen(second.bias[index])

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> the same; without autograd `x_nhwc` itself is changed."""
        as_graph = torch.is_grad_enabled() or torch.compiler.is_compiling() or is_recorded() or x_nhwc.is_meta
        in_place = not (as_graph or torch.is_autocast_enabled(x_nhwc.device.type))
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

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module], order: ChannelOrder, reduction: int) -> None:
        super().__init__(downsample, blocks, reduction)
        self.register_buffer("places", torch.tensor(order.places), persistent=False)
        self.places: Tensor
        self.choose_graph_form((EXPORT_SIZE, EXPORT_SIZE), batch=1)

    def features(self, x_nhwc: Tensor) -> Tensor:
        return x_nhwc.index_select(-1, self.places)

    def choose_graph_form(self, image_size: tuple[int, int], batch: int) -> None:
        """Let graphs recorded from now on be fastest for images of this height and width, in pixels, and this batch."""
        height, width = (edge // self.reduction for edge in image_size)
        for mixer in self.modules():
            if isinstance(mixer, BlendedMixer):
                mixer.graph_form = choose_form(batch, height * width, mixer.order, graph=True)


class OrderedConv(nn.Module):
    """A convolution whose channels were put in another order, for activations that are channels-last in memory.

    The weight is kept as it is read, (out, height, width, in), so that no call reorders it and every parameter is
    contiguous.
    """

    def __init__(self, conv: nn.Conv2d, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation
        self.weight_ohwi = frozen(conv.weight[list(outputs)][:, list(inputs)].permute(0, 2, 3, 1))
        self.bias = None if conv.bias is None else frozen(conv.bias[list(outputs)])

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in, height, width) -> (batch, out, height', width')."""
        weight = self.weight_ohwi.permute(0, 3, 1, 2)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation)


class FusedConvStem(Stem):
    """The `ConvStem` with its channels in another order."""

    def __init__(self, conv: OrderedConv) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_chans, height, width) -> (batch, height', width', channels)."""
        return self.conv(x).permute(0, 2, 3, 1).contiguous()


def graph_form(model: nn.Module, image_size: int | tuple[int, int] = EXPORT_SIZE, batch: int = 1) -> nn.Module:
    """The form to export: the values of `model`, which is not changed, in a graph that runtimes execute fastest.

    Args:
        model: in eval mode, or fused already; for backbones without a fused form a copy is returned.
        image_size: edge, or height and width, in pixels for which the graph is fastest; it is exact for any size.
        batch: number of images for which it is fastest; likewise exact for any.

    Raises:
        ConfigError: the model is in training mode.
    """
    form: nn.Module = reparameterize_model(model)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    for stage in form.modules():
        if isinstance(stage, FusedStage):
            stage.choose_graph_form(size, batch)
    return form.eval()


def fuse_stem(stem: Stem) -> Stem:
    """The stem with its output channels in the order of stages that are fused.

    Raises:
        ConfigError: the model is in training mode.
    """
    _check_eval(stem)
    conv = stem.conv if isinstance(stem, PatchStem) else stem
    assert isinstance(conv, nn.Conv2d)
    assert stem.stepsize is not None
    channels = ChannelOrder.of(conv.out_channels, stem.stepsize).channels
    ordered = OrderedConv(conv, range(conv.in_channels), channels)
    if not isinstance(stem, PatchStem):
        return FusedConvStem(ordered).eval()
    stem.conv = ordered
    _permuted_norm(stem.norm, channels)
    stem.stepsize = None  # it cannot be fused again
    return stem.eval()


def fuse_stages(stages: Iterable[nn.Module]) -> nn.ModuleList:
    """The stages in their exact inference form; what it shares with them is changed in place.

    Raises:
        ConfigError: the model is in training mode.
    """
    fused: list[nn.Module] = []
    before: ChannelOrder | None = None
    for stage in stages:
        assert isinstance(stage, Stage)
        _check_eval(stage)
        blocks = [block for block in stage.blocks if isinstance(block, CycleBlock)]
        order = ChannelOrder.of_mixer(blocks[0].token_mixer)
        if before is not None:
            _permute_downsample(stage.downsample, before, order)
        own = [FusedBlock(block, order) for block in blocks]
        fused.append(FusedStage(stage.downsample, own, order, stage.reduction))
        before = order
    return nn.ModuleList(fused).eval()


def _permute_downsample(downsample: nn.Module, before: ChannelOrder, order: ChannelOrder) -> None:
    if isinstance(downsample, ChannelsLast):
        assert isinstance(downsample.conv, nn.Conv2d)
        downsample.conv = OrderedConv(downsample.conv, before.channels, order.channels)
    elif isinstance(downsample, PatchMerging):
        width = len(before.channels)
        inputs = [part * width + channel for part in range(4) for channel in before.channels]
        _permuted_norm(downsample.norm, inputs)
        downsample.reduction.weight = frozen(downsample.reduction.weight[list(order.channels)][:, inputs])
    else:
        raise ConfigError(f"{type(downsample).__name__} between stages has no fused form")


def _permuted_norm(norm: nn.Module, channels: Sequence[int]) -> nn.Module:
    assert isinstance(norm, nn.LayerNorm)
    norm.weight, norm.bias = frozen(norm.weight[list(channels)]), frozen(norm.bias[list(channels)])
    return norm


def _check_eval(module: nn.Module) -> None:
    if module.training:
        raise ConfigError("a model in training mode has no fused form: call model.eval() before reparameterize_model")
