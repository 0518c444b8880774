"""What a detection head is made of, and what it keeps of what it finds; light, for recipes and model cards."""

from dataclasses import dataclass
from typing import Literal

from cyclemlp.errors import ConfigError, did_you_mean

RETINANET, MASK_RCNN = "retinanet", "mask-rcnn"
STRIDES: dict[str, tuple[int, ...]] = {RETINANET: (8, 16, 32, 64, 128), MASK_RCNN: (4, 8, 16, 32, 64)}
"""Of the pyramid levels of each head."""
COCO_DETECTIONS = 100
"""Maximum number of boxes per image that are scored in COCO's tables."""
PAPER_CANDIDATES = 1000
"""Boxes per level that the papers compare."""
SHOWN_SCORE = 0.3
"""Objects with lower scores are not drawn or written unless a threshold is given or was chosen in training."""
NORMS = ("none", "group")
MAX_CONVS, MAX_BOXES, MAX_ANCHORS = 64, 10**6, 100
MAX_GROWTH = 1000 / 16
"""No box is more times wider or higher than its anchor: this keeps exp() finite early in training."""


@dataclass(frozen=True)
class DetectionHead:
    """The head's shape, its anchors, and which of its boxes are kept; the defaults are the papers'."""

    head_convs: int = 4
    """Convolutions before the last one, of each RetinaNet branch and of the masks of Mask R-CNN."""
    head_norm: Literal["none", "group"] = "none"
    """Normalisation in the head; `group` (GroupNorm) eases training from random weights, the papers have none."""
    anchor_size: float | None = None
    """Edge of a level's smallest square anchor in strides of the level; the papers' is 4 for RetinaNet, 8 for Mask R-CNN."""  # noqa: E501
    anchor_scales: tuple[float, ...] | None = None
    """Factors on that edge; the papers' are 1, 1.26 and 1.59 for RetinaNet, 1 alone for Mask R-CNN."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height by width of the anchors."""
    detections: int | None = None
    """Maximum number of boxes kept and scored per image; by default COCO's 100, or more where labels are denser."""
    score_threshold: float = 0.05
    """Boxes of lower scores are dropped."""
    nms: float = 0.5
    """Of two boxes of a class that overlap (IoU) by more than this, the one of lower score is dropped."""
    candidates: int | None = None
    """Maximum number of boxes per pyramid level that are compared; for Mask R-CNN also of proposals per image. The papers' is 1000; Mask R-CNN has by default three for each box that is kept."""  # noqa: E501
    regions: int = 512
    """Mask R-CNN: proposals per image from which its boxes and masks learn in a step; the paper's is 512."""

    def __post_init__(self) -> None:
        if self.head_norm not in NORMS:
            near = did_you_mean(self.head_norm, NORMS)
            raise ConfigError(f"--head-norm {self.head_norm!r} is not allowed: one of {', '.join(NORMS)}.{near}")
        limits = {"head_convs": MAX_CONVS, "detections": MAX_BOXES, "candidates": MAX_BOXES, "regions": MAX_BOXES}
        for name, most in limits.items():
            value = getattr(self, name)
            _require(value is None or 1 <= value <= most, name, value, f"from 1 to {most}")
        _require(self.anchor_size is None or self.anchor_size > 0, "anchor_size", self.anchor_size, "more than 0")
        for name in ("anchor_scales", "anchor_ratios"):
            values = getattr(self, name)
            allowed = f"1 to {MAX_ANCHORS} numbers above 0"
            fits = values is None or (0 < len(values) <= MAX_ANCHORS and min(values) > 0)
            _require(fits, name, values, allowed)
        for name in ("score_threshold", "nms"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "from 0 to 1")

    @property
    def kept(self) -> int:
        """Maximum number of boxes kept per image."""
        return COCO_DETECTIONS if self.detections is None else self.detections

    @property
    def compared(self) -> int:
        """Maximum number of boxes per level before those that overlap are dropped."""
        return PAPER_CANDIDATES if self.candidates is None else self.candidates

    def edge(self, head: str) -> float:
        """Edge of the smallest square anchor, in strides."""
        return self.anchor_size if self.anchor_size is not None else 4.0 if head == RETINANET else 8.0

    def scales(self, head: str) -> tuple[float, ...]:
        """Factors on that edge."""
        if self.anchor_scales is not None:
            return self.anchor_scales
        return (1.0, 2 ** (1 / 3), 2 ** (2 / 3)) if head == RETINANET else (1.0,)

    def anchors_per_position(self, head: str) -> int:
        """Anchors at every position of every level."""
        return len(self.scales(head)) * len(self.anchor_ratios)


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"--{name.replace('_', '-')} {value} is not allowed: {allowed}")
