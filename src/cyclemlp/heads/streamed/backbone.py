"""The stages of our backbones over an image that is too large for memory: each block's output is kept on disk.

Every block is computed once, window by window with the few positions around it that its layers reach, after a pass for
each mean over the whole image that it needs: one for the re-weighting of CycleMLP and ActiveMLP, four for the norms of
AS-MLP, none for CycleMLP-T, S and B.
"""

from collections.abc import Callable, Sequence
from math import ceil

import torch
from torch import Tensor, nn

from cyclemlp.errors import DataError
from cyclemlp.heads.streamed.maps import Convolved, Map, Pointwise, Span, widened
from cyclemlp.heads.streamed.statistics import Core, with_image_means
from cyclemlp.heads.streamed.work import Work
from cyclemlp.models.activemlp import ActiveBlock, ActiveStage, Offsets, Places
from cyclemlp.models.asmlp import AxialBlock, AxialMixer
from cyclemlp.models.branches import BranchedMixer
from cyclemlp.models.cyclemlp import CycleBlock, CycleMixer
from cyclemlp.models.cyclemlp_swin import SummedCycleMixer
from cyclemlp.models.forms.fused import FusedBlock, OrderedConv
from cyclemlp.models.forms.fused_mixer import FusedMixer
from cyclemlp.models.patches import PatchMerging, PatchStem
from cyclemlp.models.pyramid import ChannelsLast, MlpPyramid, Stage
from cyclemlp.ops import CycleFC, read_places

Layer = Callable[[Tensor], Tensor]


class UnknownLayerError(Exception):
    """A layer that cannot be computed in windows exactly."""


def stage_outputs(model: nn.Module, images: Map, work: Work) -> list[Map]:
    """The feature maps of each stage of a backbone. Raises UnknownLayerError for one that is not ours."""
    if not isinstance(model, MlpPyramid):
        raise UnknownLayerError(type(model).__name__)
    outputs: list[Map] = []
    x = _stem(model.stem, images, work)
    for stage in model.stages:
        if not isinstance(stage, Stage):
            raise UnknownLayerError(type(stage).__name__)
        x = _downsampled(stage.downsample, x, work)
        x = _active(stage, x, work) if isinstance(stage, ActiveStage) else _blocks(stage.blocks, x, work)
        outputs.append(Pointwise(x, channels_first(stage.features)))
    return outputs


def _stem(stem: nn.Module, images: Map, work: Work) -> Map:
    conv = stem if isinstance(stem, nn.Conv2d) else getattr(stem, "conv", None)
    if not isinstance(conv, nn.Conv2d | OrderedConv):
        raise UnknownLayerError(type(stem).__name__)
    convolved = Convolved(images, conv)
    if not isinstance(stem, PatchStem):
        return work.kept(convolved)
    size = (-(-images.size[0] // 4), -(-images.size[1] // 4))
    copy, means = with_image_means(stem, Core(), size)
    return work.kept(_Patches(images, lambda x: copy(x).permute(0, 3, 1, 2), 4, size, convolved.channels), means)


def _downsampled(layer: nn.Module, x: Map, work: Work) -> Map:
    if isinstance(layer, nn.Identity):
        return x
    if isinstance(layer, ChannelsLast) and isinstance(layer.conv, nn.Conv2d | OrderedConv):
        return work.kept(Convolved(x, layer.conv))
    if isinstance(layer, PatchMerging) and layer.stride == 2 and layer.dilation == 1:
        size = (-(-x.size[0] // 2), -(-x.size[1] // 2))
        copy, means = with_image_means(layer, Core(), size)
        patches = _Patches(x, channels_first(copy), 2, size, layer.reduction.weight.shape[0])
        return work.kept(patches, means)
    raise UnknownLayerError(type(layer).__name__)


def _blocks(blocks: nn.Module, x: Map, work: Work) -> Map:
    for block in blocks.children():
        core = Core()
        copy, means = with_image_means(block, core, x.size)
        x = work.kept(Around(x, channels_first(copy), reach_of(block), core), means)
    return x


def _active(stage: ActiveStage, x: Map, work: Work) -> Map:
    """Blocks that read at places which others have computed: those are kept, too."""
    offsets: Map | None = None
    conv = stage.position.conv
    assert isinstance(conv, nn.Conv2d)
    for block in stage.blocks:
        assert isinstance(block, ActiveBlock)
        if block.offsets is not None:
            made = block.offsets
            x = work.kept(Around(x, channels_first(_with_position(stage)), int(conv.dilation[0]), Core()))
            dilation = made.dilation
            offsets = work.kept(Pointwise(x, channels_first(_linear(made)), made.linear.out_features))
        assert offsets is not None  # the first block of a stage computes some
        core = Core()
        copy, means = with_image_means(block, core, x.size)
        x = work.kept(_AtPlaces(x, offsets, copy, dilation, core), means)
    return x


def _linear(offsets: Offsets) -> Layer:
    return lambda x_nhwc: offsets.linear(offsets.norm(x_nhwc))


def _with_position(stage: ActiveStage) -> Layer:
    return lambda x_nhwc: x_nhwc + stage.position(x_nhwc)


def channels_first(layer: Layer) -> Layer:
    """A layer of channels-last maps for channels-first ones; the permutations are views."""
    return lambda x: layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def reach_of(block: nn.Module) -> int:
    """How many positions to each side the output of a block depends on. Raises UnknownLayerError."""
    if isinstance(block, FusedBlock):
        assert isinstance(block.token_mixer, FusedMixer)
        return max((max(abs(move.down), abs(move.right)) for move in block.token_mixer.order.moved), default=0)
    mixer = block.token_mixer if isinstance(block, CycleBlock | AxialBlock) else None
    if isinstance(mixer, AxialMixer):
        return mixer.along_width.shift_size // 2 * mixer.along_width.dilation
    if isinstance(mixer, CycleMixer | SummedCycleMixer | BranchedMixer):
        layers = [each for each in mixer.modules() if isinstance(each, CycleFC)]
        return max((max(each.stepsize) // 2 * each.dilation for each in layers), default=0)
    raise UnknownLayerError(type(block).__name__)


class _Patches(Map):
    """A layer whose every position follows from a square of `edge` positions, zero outside."""

    def __init__(self, source: Map, layer: Layer, edge: int, size: tuple[int, int], channels: int) -> None:
        super().__init__(size, channels)
        self._source, self._layer, self._edge = source, layer, edge

    def read(self, rows: Span, columns: Span) -> Tensor:
        edge = self._edge
        return self._layer(self._source.padded(*((edge * start, edge * stop) for start, stop in (rows, columns))))


class Around(Map):
    """A layer with zeros outside of the image, whose every position depends on those up to `reach` away."""

    def __init__(self, source: Map, layer: Layer, reach: int, core: Core) -> None:
        super().__init__(source.size, source.channels)
        self._source, self._layer, self._reach, self._core = source, layer, reach, core

    def read(self, rows: Span, columns: Span) -> Tensor:
        wide = [widened(span, self._reach, edge) for span, edge in zip((rows, columns), self.size, strict=True)]
        _set_core(self._core, (rows, columns), wide)
        return _own(self._core, self._layer(self._source.read(*wide)))


class _AtPlaces(Map):
    """An `ActiveBlock`: how far it reaches, its offsets say."""

    def __init__(self, source: Map, offsets: Map, block: nn.Module, dilation: int, core: Core) -> None:
        super().__init__(source.size, source.channels)
        self._source, self._offsets, self._block = source, offsets, block
        self._dilation, self._core = dilation, core

    def read(self, rows: Span, columns: Span) -> Tensor:
        along_width, along_height = self._offsets.read(rows, columns).chunk(2, 1)
        reaches = [_farthest(along_height, self._dilation), _farthest(along_width, self._dilation)]
        spans = zip((rows, columns), reaches, self.size, strict=True)
        wide = [widened(span, reach, edge) for span, reach, edge in spans]
        _set_core(self._core, (rows, columns), wide)
        to_side, down = self._offsets.read(*wide).permute(0, 2, 3, 1).chunk(2, -1)
        places = Places(read_places(to_side, "width", self._dilation), read_places(down, "height", self._dilation))
        x_nhwc = self._source.read(*wide).permute(0, 2, 3, 1)
        return _own(self._core, self._block(x_nhwc, places).permute(0, 3, 1, 2))


def _farthest(offsets: Tensor, dilation: int) -> int:
    """Positions that these offsets reach over, with both neighbours of a place."""
    if not torch.isfinite(offsets).all():
        raise DataError("the offsets of a block are not finite: the weights or this image hold extreme values")
    return ceil(float(offsets.abs().max()) * dilation) + 1


def _set_core(core: Core, own: Sequence[Span], wide: Sequence[Span]) -> None:
    core.rows, core.columns = (
        slice(span[0] - around[0], span[1] - around[0]) for span, around in zip(own, wide, strict=True)
    )


def _own(core: Core, x: Tensor) -> Tensor:
    return x[:, :, core.rows, core.columns]
