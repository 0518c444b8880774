"""Mask R-CNN with everything that predicting needs in one graph: the form in which it is exported.

Its arithmetic is that of torchvision's parts in `mask_rcnn.py`, without their loops over images and their questions
about how many boxes there are, which torch.export does not follow.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cyclemlp.heads.decoded import DECODED_NAMES, AnchorCandidates, clipped, padded, suppressed
from cyclemlp.heads.detection_options import MASK_RCNN, DetectionHead
from cyclemlp.heads.mask_rcnn import MaskRCNN

OBJECT_NAMES = (*DECODED_NAMES, "masks")
"""Of the outputs that a reader of the file needs."""
PLACE_NAMES = ("regions", "places")
"""Of the boxes that the network was asked about: (R, 4) and (P, 4), each with the whole image as its last."""


class DecodedMaskRCNN(nn.Module):
    """From one normalised image (1, C, H, W) of any size to its objects, and the values they were made from.

    Args:
        network: the form to export of a network for padded images.
        options: anchors and numbers of boxes.
    """

    def __init__(self, network: MaskRCNN, options: DetectionHead) -> None:
        super().__init__()
        self.network = network
        self.candidates = AnchorCandidates(MASK_RCNN, options, 1)
        self.register_buffer("everywhere", torch.tensor([[-1.0, -1.0, 1.0, 1.0]]) * 1e6)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Boxes (D, 4) in pixels of the image, scores (D,), labels (D,) and masks (D, 28, 28), the top-scoring first.

        Then regions (R, 4), and boxes (P, 4) that have masks; then the outputs of `MaskRCNN.values` for them.
        """
        size = image.shape[-2:]
        images = padded(image)
        maps = self.network.maps(images)
        objectness, moves = self.network.proposal_values(maps)
        # The whole image is one of the regions, so that no part of the graph is ever empty.
        whole = clipped(self.get_buffer("everywhere"), size)
        regions = torch.cat([self._proposals(objectness, moves, size, images.shape[-2:]), whole])
        logits, offsets = self.network.region_values(maps, regions)
        boxes, scores, labels = self._objects(logits[:-1], offsets[:-1], regions[:-1], size)
        places = torch.cat([boxes, whole])
        mask_logits = self.network.mask_values(maps, places)
        masks = mask_logits[torch.arange(labels.shape[0], device=labels.device), labels + 1].sigmoid()
        return boxes, scores, labels, masks, regions, places, objectness, moves, logits, offsets, mask_logits

    def _proposals(self, objectness: Tensor, moves: Tensor, size: Sequence[int], padded_size: Sequence[int]) -> Tensor:
        """Boxes (N, 4) that may hold an object, as `RegionProposalNetwork.filter_proposals` chooses them."""
        rpn = self.network.rpn
        levels = self.candidates(objectness, moves, padded_size)
        boxes = clipped(torch.cat([each for each, _, _ in levels]), size)
        scores = torch.cat([each for _, each, _ in levels]).sigmoid()
        numbers = torch.cat([torch.full_like(each, number) for number, (_, _, each) in enumerate(levels)])
        kept = torch.nonzero(_has_edges(boxes, rpn.min_size))[:, 0]
        boxes, scores, numbers = boxes[kept], scores[kept], numbers[kept]
        return boxes[suppressed(boxes, scores, numbers, size, rpn.nms_thresh)[: rpn.post_nms_top_n()]]

    def _objects(
        self, logits: Tensor, offsets: Tensor, regions: Tensor, size: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels from 0, as `RoIHeads.postprocess_detections` has them from 1."""
        heads = self.network.roi_heads
        num_classes = logits.shape[1] - 1
        boxes = heads.box_coder.decode_single(offsets, regions)[:, 4:].reshape(-1, 4)
        boxes, scores = clipped(boxes, size), logits.softmax(dim=1)[:, 1:].reshape(-1)
        likely = torch.nonzero((scores > heads.score_thresh) & _has_edges(boxes, _LEAST_EDGE))[:, 0]
        boxes, scores, labels = boxes[likely], scores[likely], likely % num_classes
        kept = suppressed(boxes, scores, labels, size, heads.nms_thresh)[: heads.detections_per_img]
        return boxes[kept], scores[kept], labels[kept]


_LEAST_EDGE = 1e-2
"""Pixels; torchvision's region heads drop smaller boxes."""


def _has_edges(boxes: Tensor, least: float) -> Tensor:
    """Which boxes (N, 4) are at least this wide and high."""
    return (boxes[:, 2:] - boxes[:, :2] >= least).all(dim=1)
