"""What all backbones share: four stages on channels-last activations, and the interface of timm's models.

A subclass builds stem, stages and the last norm; this class adds the classifier head, feature maps, layer groups, and
the loading of checkpoints in other layouts.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from timm.layers import ClassifierHead, DropPath, Mlp, calculate_drop_path_rates
from timm.models import checkpoint_seq
from torch import Tensor, nn

from cyclemlp.errors import ConfigError
from cyclemlp.models.checkpoints import adapt_state_dict, without_prefix
from cyclemlp.models.timm_internals import FeatureGetterNet, feature_take_indices

REDUCTIONS = (4, 8, 16, 32)
OUTPUT_STRIDES = (8, 16, 32)


class Spacing(NamedTuple):
    """How far apart the positions of a stage are, and those that its layers read together."""

    stride: int
    """Of the downsampling before the stage."""
    downsample_dilation: int
    """Distance of the positions that the downsampling reads, in positions of the previous stage."""
    dilation: int
    """Factor for every distance inside the blocks."""
    reduction: int
    """Pixels of the image for each position."""


def stage_spacings(output_stride: int = 32) -> list[Spacing]:
    """The four stages of a pyramid whose maps are no coarser than `output_stride`.

    From there on a stage keeps the resolution, and its layers look twice as far: with weights trained at stride 32,
    every second position has the neighbours that it has there, as in DeepLab.

    Raises:
        ConfigError: another stride than 8, 16 or 32.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise ConfigError(f"output_stride is {output_stride!r}; allowed are 8, 16 and 32")
    spacings, dilation = [Spacing(1, 1, 1, REDUCTIONS[0])], 1
    for reduction in REDUCTIONS[1:]:
        before, stride = dilation, 2 if reduction <= output_stride else 1
        dilation *= 2 // stride
        spacings.append(Spacing(stride, before, dilation, min(reduction, output_stride)))
    return spacings


@dataclass(frozen=True)
class PyramidSizes:
    """What the sizes of every backbone name; one value for each stage."""

    widths: tuple[int, int, int, int]
    """Channels."""
    depths: tuple[int, int, int, int]
    """Numbers of blocks."""
    mlp_ratios: tuple[int, int, int, int] = (4, 4, 4, 4)
    """Hidden channels of the channel MLPs, as a multiple of the width."""


Sizes = TypeVar("Sizes", bound=PyramidSizes)


class Stem(nn.Module):
    """What makes channels-last activations at stride 4 of images."""

    stepsize: int | None = None
    """That of the stages with which it can be fused for inference, None where it cannot."""

    def fuse(self) -> "Stem":
        """Called by timm's `reparameterize_model`, together with that of the stages."""
        if self.stepsize is None:
            return self
        from cyclemlp.models.forms.fused import fuse_stem  # the forms import the models

        return fuse_stem(self)


class MixerBlock(nn.Module):
    """Token mixer and channel MLP, each after a norm and inside a residual connection."""

    norm: type[nn.Module] = nn.LayerNorm

    def __init__(self, width: int, token_mixer: nn.Module, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = self.norm(width)
        self.token_mixer = token_mixer
        self.norm2 = self.norm(width)
        self.channel_mlp = Mlp(width, mlp_ratio * width)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) -> the same."""
        x_nhwc = x_nhwc + self.drop_path(self.token_mixer(self.norm1(x_nhwc)))
        return x_nhwc + self.drop_path(self.channel_mlp(self.norm2(x_nhwc)))


class Stage(nn.Module):
    """`downsample`, then `blocks`; channels-last in and out. `reduction` is in pixels for each position."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module], reduction: int) -> None:
        super().__init__()
        self.reduction = reduction
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)
        self.grad_checkpointing = False

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, channels) of the previous stage -> the same of this stage."""
        x_nhwc = self.downsample(x_nhwc)
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint_seq(self.blocks, x_nhwc)
        return self.blocks(x_nhwc)

    def features(self, x_nhwc: Tensor) -> Tensor:
        """The stage's output as a feature map; a fused stage restores the order of its channels here."""
        return x_nhwc


class ChannelsLast(nn.Module):
    """A convolution between channels-last activations; the permutations are views, no copy."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x_nhwc: Tensor) -> Tensor:
        """(batch, height, width, in) -> (batch, height', width', out)."""
        return self.conv(x_nhwc.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


def conv_downsample(inputs: int, outputs: int, spacing: Spacing) -> ChannelsLast:
    """A 3x3 convolution between stages."""
    dilation = spacing.downsample_dilation
    return ChannelsLast(nn.Conv2d(inputs, outputs, 3, spacing.stride, padding=dilation, dilation=dilation))


class MlpPyramid(nn.Module, Generic[Sizes]):
    """A classifier over a pyramid of four stages, with the interface that timm's own models have.

    Args:
        sizes: of stages and blocks; a dataclass of the subclass.
        num_classes: 0 for no classifier.
        in_chans: channels of the images.
        global_pool: timm's name of the pooling; '' keeps the map.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth rate of the last block; the rates grow linearly from 0.
        output_stride: 32, or 16 or 8 for finer last maps, computed by dilated layers with the same weights.
        device: where the parameters are made; torch's default device if None.
        dtype: their type; torch's default type if None.
    """

    output_fmt: ClassVar[str] = "NHWC"
    """The layout of what `forward_features` returns, by timm's name."""

    def __init__(
        self,
        sizes: Sizes,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        output_stride: int = 32,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        self.num_features = self.head_hidden_size = width = sizes.widths[-1]
        spacings = stage_spacings(output_stride)
        self.feature_info = [
            {"num_chs": channels, "reduction": spacing.reduction, "module": f"stages.{s}"}
            for s, (channels, spacing) in enumerate(zip(sizes.widths, spacings, strict=True))
        ]
        rates = calculate_drop_path_rates(drop_path_rate, list(sizes.depths), stagewise=True)
        with nullcontext() if device is None else torch.device(device):
            self.stem, self.stages, self.norm = self.build(sizes, in_chans, rates, spacings)
            self.head = ClassifierHead(width, num_classes, pool_type=global_pool, drop_rate=drop_rate, input_fmt="NHWC")
            self.init_weights()
        self.to(dtype=dtype)

    def build(
        self,
        sizes: Sizes,
        in_chans: int,
        drop_path_rates: Sequence[Sequence[float]],
        spacings: Sequence[Spacing],
    ) -> tuple[nn.Module, nn.ModuleList, nn.Module]:
        """The stem, from images to channels-last activations at stride 4; four `Stage`s; and the last norm."""
        raise NotImplementedError

    def init_weights(self) -> None:
        """Draw the weights that do not start as those of torch's layers: here of all linear layers."""
        self.apply(init_linear)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (batch, in_chans, height, width) -> normalised channels-last map at stride 32."""
        x_nhwc = self.stem(x)
        for stage in self.stages:
            x_nhwc = stage(x_nhwc)
        return self.norm(_features(self.stages[-1], x_nhwc))

    def forward_head(self, x_nhwc: Tensor, pre_logits: bool = False) -> Tensor:
        """Channels-last map -> logits (batch, num_classes), or pooled features with `pre_logits`."""
        return self.head(x_nhwc, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, in_chans, height, width), any size from 32 -> logits (batch, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | tuple[int, ...] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps after the chosen stages, and the final map unless `intermediates_only`.

        Args:
            x: images (batch, in_chans, height, width).
            indices: stages whose maps are returned; an int n means the last n, None means all.
            norm: apply the last normalisation to the last stage's map, if it is among them.
            stop_early: do not compute the stages after the last one requested.
            output_fmt: 'NCHW' or 'NHWC', the layout of the returned maps.
            intermediates_only: return only the list.

        Raises:
            ValueError: another `output_fmt`.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt is {output_fmt!r}; allowed are 'NCHW' and 'NHWC'")
        take, last = feature_take_indices(len(self.stages), indices)
        count = last + 1 if stop_early else len(self.stages)
        maps = []
        x_nhwc = self.stem(x)
        for s, stage in enumerate(self.stages[:count]):
            x_nhwc = stage(x_nhwc)
            if s in take:
                features = _features(stage, x_nhwc)
                features = self.norm(features) if norm and s == len(REDUCTIONS) - 1 else features
                maps.append(features.permute(0, 3, 1, 2) if output_fmt == "NCHW" else features)
        if intermediates_only:
            return maps
        last_map = _features(self.stages[count - 1], x_nhwc)
        return (self.norm(last_map) if count == len(REDUCTIONS) else last_map), maps

    def prune_intermediate_layers(
        self, indices: int | list[int] | tuple[int, ...] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what the chosen maps do not need; returns their indices counted from the first stage."""
        take, last = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[: last + 1]
        if prune_norm or last < len(REDUCTIONS) - 1:  # an unused norm would have parameters without gradients
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return list(take)

    def get_classifier(self) -> nn.Module:
        """The last linear layer, or an identity where there is none."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by one for `num_classes` (0 for none), and the pooling if one is named."""
        self.num_classes = num_classes
        place = next(self.parameters())
        self.head.reset(num_classes, global_pool)
        self.head.to(place.device, place.dtype)  # before timm 1.0.29 a new classifier is float32 on the CPU

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks' activations in the backward pass instead of keeping them."""
        for stage in self.stages:
            assert isinstance(stage, Stage)
            stage.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that assign each parameter to a layer, for layer-wise learning rates."""
        if coarse:
            return {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}
        blocks = [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^stem", "blocks": blocks}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, apart from the biases and scales that timm excludes: none."""
        return set()

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As in torch; weights in the authors' layout are accepted too, and are checked and renamed first.

        Raises:
            CheckpointError: keys or shapes do not fit (with `strict`); nothing is loaded then.
        """
        return super().load_state_dict(adapt_state_dict(state_dict, self, strict=strict), strict, assign)


class PyramidFeatures(FeatureGetterNet):  # type: ignore[misc]
    """timm's feature wrapper, which also accepts checkpoints of a whole classifier (`checkpoint_path=`)."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Accepts the wrapper's own layout (`model.` before each key) and a classifier's, whose head is left out."""
        state_dict = without_prefix(state_dict)
        return self.model.load_state_dict(state_dict, strict, assign)


def _features(stage: nn.Module, x_nhwc: Tensor) -> Tensor:
    assert isinstance(stage, Stage)
    return stage.features(x_nhwc)


def init_linear(module: nn.Module) -> None:
    """Truncated normal weights of deviation .02 and zero biases for linear layers, as in the authors' code."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
