"""Options of a segmentation run; light, as `cyclemlp.tasks.options` is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclemlp.data.augmentation import MaskAugmentation
from cyclemlp.option_checks import at_least, at_least_zero, choice, positive
from cyclemlp.tasks.options import RESUMABLE, RunConfig, group


@dataclass(frozen=True)
class Loss:
    """What is minimised: cross entropy, weighted by class, and optionally Dice."""

    class_weights: Literal["none", "fourth-root-inverse", "sqrt-inverse", "inverse"] = "none"
    """Weight of each class, from the number of its pixels in the training masks."""
    dice: float = 0.0
    """Weight of the Dice term that is added to cross entropy; it counts every class equally; 0 leaves it out."""
    auxiliary: float = 0.4
    """Weight of the cross entropy of the auxiliary head that upernet is trained with; 0 trains without one."""

    def __post_init__(self) -> None:
        choice(self, "class_weights", ("none", "fourth-root-inverse", "sqrt-inverse", "inverse"))
        at_least_zero(self, "dice", "auxiliary")


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(RunConfig):
    """A whole segmentation run; only `data` has to be given."""

    data: Path
    """Folder with images/train, images/val, masks/train, masks/val and, optionally, classes.txt, or in another layout that `cyclemlp data` understands."""  # noqa: E501
    palette: Path | None = None
    """File with the colours of the classes in the masks, one class a line such as `building 255 0 0` or `building #ff0000`, where --data has none in its classes.txt; the colours of `ignore` or `void` are ignored."""  # noqa: E501
    label_field: str | None = None
    """Property that names the class of an area, where masks are GeoJSON, GeoPackage or Shapefile; `none` where all areas are one class. By default the only one called class, label or category."""  # noqa: E501
    head: str = "semantic-fpn"
    """Segmentation head: semantic-fpn or upernet."""
    head_width: int | None = None
    """Channels of the head; by default as many as the backbone's map at stride 8 has (three quarters of it for upernet). The papers' are 256 for semantic-fpn, 512 for upernet."""  # noqa: E501
    input_scale: float = 1.0
    """Factor by which images are upscaled before the network, for objects only a few pixels wide."""
    short_side: int | None = None
    """Pixels to which an image's shorter edge is resized first, in training and prediction; 512 for ADE20K. By default it is kept."""  # noqa: E501
    long_side: int | None = None
    """Maximum pixels of the longer edge after that; larger images are downscaled to it."""
    window: int | None = field(default=None, metadata=RESUMABLE)
    """Edge of the sliding window in evaluation and prediction, in network pixels; by default only images of more than 8 million pixels are cut."""  # noqa: E501
    augmentation: Annotated[MaskAugmentation, group("Augmentation", 3)] = field(default_factory=MaskAugmentation)
    loss: Annotated[Loss, group("Loss", 4)] = field(default_factory=Loss)

    def __post_init__(self) -> None:
        positive(self, "input_scale", "short_side", "long_side")
        at_least(self, "head_width", 8)
        at_least(self, "window", 32)
