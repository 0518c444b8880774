"""The detectors by name."""

from cyclemlp.errors import ConfigError, did_you_mean
from cyclemlp.heads.detection_options import MASK_RCNN, RETINANET, DetectionHead
from cyclemlp.heads.mask_rcnn import MaskRCNN
from cyclemlp.heads.pyramid import PyramidBackbone
from cyclemlp.heads.retinanet import RetinaNet

WIDTH = 256
"""Channels of pyramid and heads in the papers."""

HEADS: dict[str, type[RetinaNet] | type[MaskRCNN]] = {RETINANET: RetinaNet, MASK_RCNN: MaskRCNN}
_OUT_INDICES = {RETINANET: (1, 2, 3), MASK_RCNN: (0, 1, 2, 3)}


def build_detector(
    backbone: str,
    head: str,
    num_classes: int,
    *,
    head_width: int | None = None,
    options: DetectionHead | None = None,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
) -> RetinaNet | MaskRCNN:
    """A detector by the names of its parts.

    Args:
        backbone: timm's name of a network with a pyramid.
        head: a name in `HEADS`.
        num_classes: without the background.
        head_width: channels of pyramid and heads, None for the paper's 256.
        options: the rest of the head's shape, by default the papers'.
        in_chans: channels of the images.
        drop_path_rate: stochastic depth of the backbone.

    Raises:
        ConfigError: an unknown backbone or head, or a backbone without a pyramid.
    """
    if head not in HEADS:
        raise ConfigError(f"head {head!r} is not known; allowed: {', '.join(HEADS)}.{did_you_mean(head, HEADS)}")
    trunk = PyramidBackbone(backbone, out_indices=_OUT_INDICES[head], in_chans=in_chans, drop_path_rate=drop_path_rate)
    return HEADS[head](trunk, num_classes, head_width or WIDTH, options or DetectionHead())
