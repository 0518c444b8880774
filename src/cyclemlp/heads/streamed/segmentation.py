"""Segmentation networks over an image that is too large for memory: logits of any window of it."""

from itertools import chain

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from cyclemlp.heads.segmentation import SegmentationModel
from cyclemlp.heads.semantic_fpn import SemanticFPN
from cyclemlp.heads.streamed.backbone import UnknownLayerError, channels_first, stage_outputs
from cyclemlp.heads.streamed.maps import Constant, Convolved, Joined, Map, Pointwise, Summed, resampled
from cyclemlp.heads.streamed.resampling import bilinear, nearest
from cyclemlp.heads.streamed.work import Work
from cyclemlp.heads.upernet import POOL_SCALES, UperNet, bins

_POINTWISE = (nn.BatchNorm2d, nn.ReLU, nn.Dropout2d, nn.Identity)


def logits_map(model: nn.Module, images: Map, work: Work) -> Map:
    """The logits at the size of `images`, a normalised map of an edge of 32 or more.

    Raises UnknownLayerError for a network of which not every layer can be computed in windows exactly.
    """
    if not isinstance(model, SegmentationModel):
        raise UnknownLayerError(type(model).__name__)
    trunk = getattr(model.backbone.trunk, "model", model.backbone.trunk)
    outputs = stage_outputs(trunk, images, work)
    maps: list[Map] = [
        Pointwise(x, channels_first(norm)) for x, norm in zip(outputs, model.backbone.norms, strict=True)
    ]
    if isinstance(model.head, SemanticFPN):
        logits = _semantic_fpn(model.head, maps)
    elif isinstance(model.head, UperNet):
        logits = _upernet(model.head, maps, work)
    else:
        raise UnknownLayerError(type(model.head).__name__)
    return resampled(logits, images.size, bilinear)


def layers(x: Map, module: nn.Module) -> Map:
    """The output of convolutions, doublings and pointwise layers one after the other. Raises UnknownLayerError."""
    if isinstance(module, nn.Sequential):
        for each in module:
            x = layers(x, each)
        return x
    if isinstance(module, nn.Conv2d):
        return Convolved(x, module)
    if isinstance(module, nn.Upsample) and module.mode == "bilinear" and module.scale_factor == 2:
        return resampled(x, (2 * x.size[0], 2 * x.size[1]), bilinear)
    if isinstance(module, _POINTWISE):
        return Pointwise(x, module)
    raise UnknownLayerError(type(module).__name__)


def pyramid(fpn: FeaturePyramidNetwork, maps: list[Map]) -> list[Map]:
    """The levels of torchvision's feature pyramid without its extra ones."""
    *finer, last = [layers(x, inner) for x, inner in zip(maps, fpn.inner_blocks, strict=True)]
    levels = [last]
    for lateral in reversed(finer):
        levels.insert(0, Summed(lateral, resampled(levels[0], lateral.size, nearest)))
    return [layers(level, layer) for level, layer in zip(levels, fpn.layer_blocks, strict=True)]


def _semantic_fpn(head: SemanticFPN, maps: list[Map]) -> Map:
    levels = zip(pyramid(head.fpn, maps), head.branches, strict=True)
    joined = Summed(*(resampled(layers(level, branch), maps[0].size, bilinear) for level, branch in levels))
    return Convolved(joined, head.classifier)


def _upernet(head: UperNet, maps: list[Map], work: Work) -> Map:
    *finer, coarsest = maps
    pooled = _pooled(coarsest, work)
    context = [
        resampled(Constant(convolve(means)), coarsest.size, bilinear)
        for convolve, means in zip(head.pooled, pooled, strict=True)
    ]
    # The coarsest levels are small, and each window of those above would compute them again.
    levels = [work.kept(layers(Joined([coarsest, *context]), head.context))]
    for lateral, x in zip(reversed(head.laterals), reversed(finer), strict=True):
        levels.append(Summed(layers(x, lateral), resampled(levels[-1], x.size, bilinear)))
    coarse, *rest = levels
    rest = [layers(level, output) for level, output in zip(rest, reversed(head.outputs), strict=True)]
    joined = Joined([resampled(level, maps[0].size, bilinear) for level in chain(reversed(rest), [coarse])])
    return Convolved(layers(joined, head.join), head.classifier)


def _pooled(x: Map, work: Work) -> list[Tensor]:
    """Means over the bins of every scale, (1, channels, scale, scale), in one pass."""
    height, width = x.size
    weights = [[bins(edge, scale, torch.float64) for edge in (height, width)] for scale in POOL_SCALES]
    totals = [torch.zeros(1, x.channels, scale, scale, dtype=torch.float64) for scale in POOL_SCALES]
    for rows, columns in work.windows_of(x):
        window = x.read(rows, columns).cpu().double()
        for total, (down, right) in zip(totals, weights, strict=True):
            total += torch.einsum("nchw,ih,jw->ncij", window, down[:, slice(*rows)], right[:, slice(*columns)])
    return [total.float().to(work.device) for total in totals]
