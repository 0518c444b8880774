"""How many channels a head has unless --head-width says so: few enough to cost less than the backbone.

The papers put 256 or 512 channels on backbones of 15 to 90 M parameters; on `cyclemlp_nano` that head would cost seven
times the backbone. `python -m benchmarks heads` measures what the whole network costs.
"""

import torch

from cyclemlp.heads.detection_options import MASK_RCNN, RETINANET
from cyclemlp.heads.pyramid import head_by_name
from cyclemlp.models.backbones import create_backbone

PAPER_WIDTHS = {"semantic-fpn": 256, "upernet": 512, RETINANET: 256, MASK_RCNN: 256}
"""Channels of each head in its paper; no default is wider."""
_AT_STRIDE_8 = 1
_SHARE = {MASK_RCNN: 0.75, "upernet": 0.75}
"""Of the channels at stride 8; Mask R-CNN and UPerNet compute more per channel than the other heads."""
_GROUP = 16


def default_width(backbone: str, head: str) -> int:
    """Channels of `head` on `backbone`: as its map at stride 8 has, or a share of them, and at most the paper's.

    Raises:
        ConfigError: an unknown backbone or head, or a backbone without a pyramid.
    """
    most = head_by_name(head, PAPER_WIDTHS)
    with torch.device("meta"):  # shapes alone
        trunk = create_backbone(backbone, out_indices=(_AT_STRIDE_8,))
    (channels,) = trunk.feature_info.channels()  # type: ignore[union-attr, operator]
    width = int(channels * _SHARE.get(head, 1))
    return min(most, max(_GROUP, width // _GROUP * _GROUP))
