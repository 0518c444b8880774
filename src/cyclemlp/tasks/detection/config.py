"""What a detection run is made of; light, as `config.py` is.

The defaults suit some hundred images, a small machine and random initial weights: a light head with GroupNorm, crops at
several scales, and anchors and image size chosen from the labels. The paper's own settings for COCO are recipes.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from cyclemlp.data.augmentation import BoxAugmentation
from cyclemlp.errors import ConfigError
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.option_checks import at_least, positive
from cyclemlp.tasks.options import Optimisation, RunConfig, ScheduleName, group


@dataclass(frozen=True)
class DetectionOptimisation(Optimisation):
    """How weights follow gradients; norms and biases are not decayed."""

    batch_size: int = 4
    """Images per batch and device."""
    schedule: ScheduleName = "cosine"
    """How the learning rate falls afterwards."""
    frozen_batch_norm: bool = False
    """BatchNorm in the backbone stays as it is, as is usual with pretrained ResNets and few images a step; not useful with random weights."""  # noqa: E501


@dataclass(frozen=True)
class LightHead(DetectionHead):
    """Shape, anchors and thresholds of the head."""

    head_convs: int = 2
    """Convolutions before the last one, of each RetinaNet branch and of the masks of Mask R-CNN; the papers have 4."""
    head_norm: Literal["none", "group"] = "group"
    """Normalisation in the head; `group` (GroupNorm) eases training from random weights, the papers have none."""
    regions: int = 128
    """Mask R-CNN: proposals per image from which its boxes and masks learn in a step; the paper's is 512."""
    anchor_size: float | None = None
    """Edge of a level's smallest square anchor in strides of the level; by default from the labels. The papers' is 4 for RetinaNet, 8 for Mask R-CNN."""  # noqa: E501

    def as_head(self) -> DetectionHead:
        """The same without these defaults, for the card."""
        return DetectionHead(**{item.name: getattr(self, item.name) for item in fields(DetectionHead)})


@dataclass(frozen=True)
class DetectionLossWeights:
    """What is minimised: the terms of RetinaNet or Mask R-CNN, added up."""

    box_weight: float = 1.0
    """Weight of the terms that place boxes; those that name them, and find masks, have 1."""

    def __post_init__(self) -> None:
        positive(self, "box_weight")


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(RunConfig):
    """A whole detection run; only `data` has to be given."""

    data: Path
    """Folder with boxes in the format of COCO (train.json, val.json, train/, val/, or as its archives are), of PASCAL VOC or of YOLO."""  # noqa: E501
    head: str = "retinanet"
    """Detection head: retinanet, or mask-rcnn where objects have outlines."""
    head_width: int | None = None
    """Channels of the feature pyramid and the head; by default as many as the backbone's map at stride 8 has (three quarters of it for mask-rcnn). The papers' is 256."""  # noqa: E501
    input_scale: float | None = None
    """Factor images are resized by before the network; by default a power of two chosen so that small objects are some 24 pixels wide."""  # noqa: E501
    short_side: int | None = None
    """Length of an image's shorter side before the network, in place of --input-scale; 800 in the papers."""
    long_side: int | None = None
    """Maximum length of its longer side in pixels; 1333 in the papers."""
    optimisation: Annotated[DetectionOptimisation, group("Optimisation", 2)] = field(
        default_factory=DetectionOptimisation
    )
    augmentation: Annotated[BoxAugmentation, group("Augmentation", 3)] = field(default_factory=BoxAugmentation)
    detector: Annotated[LightHead, group("Head", 4)] = field(default_factory=LightHead)
    loss: Annotated[DetectionLossWeights, group("Loss", 4)] = field(default_factory=DetectionLossWeights)

    def __post_init__(self) -> None:
        positive(self, "input_scale", "short_side", "long_side")
        at_least(self, "head_width", 8)
        if self.input_scale is not None and self.short_side is not None:
            raise ConfigError("--input-scale and --short-side were both given: give one of them")
