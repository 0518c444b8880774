"""The detectors by name."""

from cyclemlp.heads.detection_options import MASK_RCNN, RETINANET, DetectionHead
from cyclemlp.heads.mask_rcnn import MaskRCNN
from cyclemlp.heads.pyramid import PyramidBackbone, head_by_name
from cyclemlp.heads.retinanet import RetinaNet
from cyclemlp.heads.widths import PAPER_WIDTHS

HEADS: dict[str, type[RetinaNet] | type[MaskRCNN]] = {RETINANET: RetinaNet, MASK_RCNN: MaskRCNN}


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
    """A detector by the names of its parts: as `segmentation.build_segmentation_model`, for the heads in `HEADS`.

    `num_classes` is without the background. `options` are the rest of the head's shape, by default the papers'.
    """
    make = head_by_name(head, HEADS)
    trunk = PyramidBackbone(backbone, out_indices=make.levels, in_chans=in_chans, drop_path_rate=drop_path_rate)
    return make(trunk, num_classes, head_width or PAPER_WIDTHS[head], options or DetectionHead())
