"""From images to masks: one object that knows its model, its preprocessing and its device."""

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from cyclemlp.data.images import read_image
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.inference.results import SegmentationResult
from cyclemlp.inference.tiling import Tiling, predict_classes
from cyclemlp.tasks.card import ModelCard, load_model

ImageInput = Path | str | npt.NDArray[np.uint8] | Image.Image

# Larger images go through windows even where the card asks for whole ones: 8 million network pixels need
# gigabytes of memory, and the need grows with the image.
MAX_WHOLE_PIXELS = 2**23
LARGE_IMAGE_WINDOW = 1024


class Predictor:
    """Predicts masks with a trained network.

        predictor = cyclemlp.Predictor.load("demo/run")
        result = predictor.predict("photo.jpg")
        result.draw().save("overlay.png")

    Images may have any size. Results do not depend on which images are given together.
    """

    def __init__(self, model: nn.Module, card: ModelCard, device: str = "auto") -> None:
        """Use `model`, which the card describes, on `device`: auto, cpu, cuda, cuda:1, mps."""
        self.card = card
        self.device = choose_device(device)
        self._network = _inference_form(model).to(self.device)
        self._mean = torch.tensor(card.mean, device=self.device).view(-1, 1, 1) * 255
        self._std = torch.tensor(card.std, device=self.device).view(-1, 1, 1) * 255

    @classmethod
    def load(cls, path: Path | str, device: str = "auto") -> "Predictor":
        """The predictor of a run folder or of a `model.safetensors` with `model.json` beside it.

        Raises CheckpointError where `path` is no such thing, ConfigError for an unusable device.
        """
        model, card = load_model(Path(path))
        return cls(model, card, device)

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is itself a sequence of str
        self, images: ImageInput, *, progress: bool = False
    ) -> SegmentationResult: ...

    @overload
    def predict(self, images: Sequence[ImageInput], *, progress: bool = False) -> list[SegmentationResult]: ...

    def predict(
        self, images: ImageInput | Sequence[ImageInput], *, progress: bool = False
    ) -> SegmentationResult | list[SegmentationResult]:
        """The class of every pixel of one image (one result) or of several (a list of results).

        An image is a path, an array (H, W, 3) or (H, W) uint8, or a Pillow image; orientation tags are
        applied. `progress` shows a bar for images that take long. Raises DataError for an unusable image.
        """
        if isinstance(images, str | Path | np.ndarray | Image.Image):
            return self._predict_one(images, progress)
        return [self._predict_one(image, progress) for image in images]

    def _predict_one(self, image: ImageInput, progress: bool) -> SegmentationResult:
        pixels = as_array(image, self.card.in_chans)
        batch = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).unsqueeze(0)
        classes = predict_classes(self._normalised, batch, self._tiling(*pixels.shape[:2]), progress=progress)
        return SegmentationResult(classes[0].numpy(), self.card.classes, pixels)

    def _normalised(self, windows: Tensor) -> Tensor:
        """The network on windows (N, C, H, W) of values 0 to 255."""
        logits: Tensor = self._network((windows.to(self.device) - self._mean) / self._std)
        return logits

    def _tiling(self, height: int, width: int) -> Tiling:
        window, scale = self.card.window, self.card.input_scale
        if window is None and height * width * scale**2 > MAX_WHOLE_PIXELS:
            window = LARGE_IMAGE_WINDOW
        return Tiling(window, input_scale=scale)


def _inference_form(model: nn.Module) -> nn.Module:
    """The network as it is run for prediction: the one place where a faster exact form takes its place."""
    return model.eval()


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` is a GPU where there is one. Raises ConfigError."""
    usable = ["cpu"]
    if torch.cuda.is_available():
        usable.insert(0, "cuda")
    elif torch.backends.mps.is_available():
        usable.insert(0, "mps")
    if name == "auto":
        return torch.device(usable[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in usable or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ConfigError(f"device {name!r} is not usable here: allowed are auto, {', '.join(usable)}")
    return device


def as_array(image: ImageInput, channels: int) -> npt.NDArray[np.uint8]:
    """The image as (H, W, channels) uint8. Raises DataError where it is none or has other channels."""
    pixels = _pixels(image)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], channels, axis=2)
    if pixels.ndim != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise DataError(
            f"an image of shape {pixels.shape} and type {pixels.dtype}: give an array (height, width,"
            f" {channels}) or (height, width) of uint8 values 0 to 255"
        )
    if pixels.shape[2] != channels:
        raise DataError(
            f"an image with {pixels.shape[2]} channels, but the model was trained on {channels}: give an"
            f" array (height, width, {channels})"
        )
    return pixels


def _pixels(image: ImageInput) -> npt.NDArray[np.uint8]:
    if isinstance(image, np.ndarray):
        return image
    if not isinstance(image, Image.Image):
        return read_image(Path(image))
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        white = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(white, upright.convert("RGBA"))
    return np.array(upright.convert("RGB"))
