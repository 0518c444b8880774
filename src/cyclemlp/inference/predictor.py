"""From images to results: one object that knows its network, its preprocessing and what the outputs mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyclemlp.data.images import ImageInput, decode_image
from cyclemlp.errors import CheckpointError, ConfigError
from cyclemlp.inference.runtimes.network import Network
from cyclemlp.inference.views import PLAIN, Views
from cyclemlp.tasks.card import MIN_WINDOW, ModelCard
from cyclemlp.tasks.classification.predict import classify
from cyclemlp.tasks.detection.predict import find_objects
from cyclemlp.tasks.segmentation.predict import LARGE_IMAGE_WINDOW as LARGE_IMAGE_WINDOW
from cyclemlp.tasks.segmentation.predict import MAX_WHOLE_PIXELS as MAX_WHOLE_PIXELS
from cyclemlp.tasks.segmentation.predict import segment

if TYPE_CHECKING:
    from torch import nn

Result = Any
"""SegmentationResult, ClassificationResult or DetectionResult, as
the card's task says; all have `draw()` and `to_dict()`."""

Decoder = Callable[[Network, ModelCard, npt.NDArray[np.uint8], Views, bool], Result]
"""From network, card, image (H, W, C), the views of it and whether to show progress to the result of a task."""

DECODERS: Mapping[str, Decoder] = MappingProxyType(
    {
        "segmentation": segment,
        "classification": classify,
        "detection": find_objects,
        "instance-segmentation": find_objects,
    }
)

IN_VIEWS = ("segmentation", "detection", "instance-segmentation")
"""Tasks that take several views of an image, and windows: all whose results are about places in it."""

CPU_ONLY = (".onnx", ".xml")
"""Suffixes of exported files that run on the CPU, and without torch."""
EXPORTED = (*CPU_ONLY, ".pt2")


class Predictor:
    """Predicts with a trained network: a checkpoint, or a file that `cyclemlp export` has written.

        predictor = cyclemlp.Predictor.load("demo/run")
        result = predictor.predict("photo.jpg")
        result.draw().save("overlay.png")

    Images may have any size. Results do not depend on which images are given together.
    """

    def __init__(self, network: Network, card: ModelCard, views: Views = PLAIN) -> None:
        """Use `network`, which the card describes, on these views of each image. Raises ConfigError."""
        if not views.plain and card.task not in IN_VIEWS:
            raise ConfigError(f"several scales or flips are not for {card.task} models: leave them out")
        self.card = card
        self.views = views
        self._network = network
        self._decode = DECODERS[card.task]

    @classmethod
    def of_model(cls, model: "nn.Module", card: ModelCard, device: str = "auto") -> "Predictor":
        """The predictor of a torch model on `device`: auto, cpu, cuda, cuda:1, mps. Raises ConfigError."""
        from cyclemlp.inference.runtimes.torch import network_of

        return cls(network_of(model, device), card)

    @classmethod
    def load(cls, path: Path | str, device: str = "auto") -> "Predictor":
        """The predictor of a run folder, a `model.safetensors` with `model.json` beside it, or an exported file.

        ONNX (`.onnx`) and OpenVINO (`.xml` with its `.bin`) need no torch. Raises CheckpointError where `path`
        is no such thing or torch is needed but not installed, ConfigError for an unusable device.
        """
        return cls(*load_network(Path(path), device))

    def described_as(self, card: ModelCard) -> "Predictor":
        """The same network under another card: another crop or window, say."""
        return Predictor(self._network, card, self.views)

    def with_views(self, scales: Sequence[float] = (1.0,), *, flip: bool = False) -> "Predictor":
        """The same network, which sees images at these factors of their usual size, and mirrored as well with `flip`.

        Segmentation averages over the views, detectors keep the likeliest box of each object. Better and slower: a pass
        for every view. Raises ConfigError for wrong scales and for a task without views.
        """
        return Predictor(self._network, self.card, Views(tuple(scales), flip))

    def with_windows(self, window: int | None, overlap: int | None = None) -> "Predictor":
        """The same network, which sees images in windows of this edge that share `overlap`, in network pixels.

        None leaves it as the card has it. Objects that are larger than the overlap may be found in pieces. Raises
        ConfigError for sizes that make no sense and for a task without windows.
        """
        if window is None and overlap is None:
            return self
        if self.card.task not in IN_VIEWS:
            raise ConfigError(f"windows are not for {self.card.task} models: leave them out")
        if window is not None and window < MIN_WINDOW:
            raise ConfigError(f"--window {window} is not allowed: {MIN_WINDOW} or more")
        edge = window or self.card.window
        if edge is None:
            raise ConfigError(f"--overlap {overlap} needs the size of the windows: give --window, too")
        if overlap is not None and not 0 <= overlap <= edge // 2:
            raise ConfigError(f"--overlap {overlap} is not allowed: from 0 to {edge // 2}, half the window")
        return self.described_as(replace(self.card, window=edge, overlap=overlap))

    def predict(self, images: ImageInput | Sequence[ImageInput], *, progress: bool = False) -> Result:
        """The result for one image, or a list of results for several.

        An image is a path, a Pillow image, or an array (H, W, 3) or (H, W) of uint8 or uint16 values; see
        `decode_image`. `progress` shows a bar for images that take long. Raises DataError for an unusable image.
        """
        if isinstance(images, str | Path | np.ndarray | Image.Image):
            return self._predict_one(images, progress)
        return [self._predict_one(image, progress) for image in images]

    def _predict_one(self, image: ImageInput, progress: bool) -> Result:
        return self._decode(self._network, self.card, decode_image(image, self.card.in_chans), self.views, progress)


def load_network(path: Path, device: str = "auto", threads: int = 0) -> tuple[Network, ModelCard]:
    """The network and card of what `Predictor.load` takes; raises as it does.

    `threads` is for ONNX Runtime and OpenVINO, which choose their number where it is 0. Torch has one number for the
    whole process.
    """
    suffix = path.suffix.lower()
    if suffix not in EXPORTED or path.is_dir():
        return _load_with_torch(path, device)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: give a file written by `cyclemlp export`")
    if suffix == ".pt2":
        return _load_with_torch(path, device)
    if device not in ("auto", "cpu"):
        raise ConfigError(f"device {device!r}: {suffix} files run on cpu here; for another device use the checkpoint")
    if suffix == ".onnx":
        from cyclemlp.inference.runtimes.onnx import load_onnx

        return load_onnx(path, threads)
    from cyclemlp.inference.runtimes.openvino import load_openvino

    return load_openvino(path, threads)


def _load_with_torch(path: Path, device: str) -> tuple[Network, ModelCard]:
    try:
        from cyclemlp.inference.runtimes.torch import load_checkpoint, load_pt2
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{path} needs {error.name}, which is not installed: pip install torch torchvision timm, or use a file"
            " that `cyclemlp export` wrote with --format onnx or openvino"
        ) from error
    return (load_pt2 if path.suffix.lower() == ".pt2" else load_checkpoint)(path, device)
