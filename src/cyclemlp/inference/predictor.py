"""From images to results: one object that knows its network, its preprocessing and what the outputs mean."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast, overload

from cyclemlp.data.ground_resolution import ground_resolution, note_missing_reader
from cyclemlp.data.images import ImageInput, Pixels
from cyclemlp.data.measured_images import MeasuredImage, decode_measured
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.heads.network import Network, SizeRule
from cyclemlp.inference.network_image import ImageThroughNetwork
from cyclemlp.inference.runtimes.facts import ExportedNetwork, decodes_by_itself
from cyclemlp.inference.runtimes.registry import load_network
from cyclemlp.inference.views import PLAIN, Views
from cyclemlp.tasks.card import MIN_WINDOW, ModelCard
from cyclemlp.tasks.detection.decoding import refuse_looser
from cyclemlp.tasks.ground import card_at, card_for_images
from cyclemlp.tasks.options import ViewOptions
from cyclemlp.tasks.registry import get_task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from cyclemlp.tasks.registry import Prediction


class Predictor:
    """Predicts with a trained network: a checkpoint, or a file that `cyclemlp export` has written.

        predictor = cyclemlp.Predictor.load("demo/run")
        result = predictor.predict("photo.jpg")
        result.draw().save("overlay.png")

    Images may have any size. Results do not depend on which images are given together.
    """

    def __init__(self, network: Network, card: ModelCard, views: Views = PLAIN, *, exact: bool = False) -> None:
        """Use `network`, which the card describes, on these views of each image; `exact` as in `with_exact`.

        Raises ConfigError.
        """
        self.task = get_task(card.task)
        if not views.plain and not self.task.takes_views:
            raise ConfigError(f"several scales or flips are not for {card.task} models: leave them out")
        self.card = card
        self.views = views
        self.network = network
        self.exact = exact

    @classmethod
    def of_model(cls, model: "nn.Module", card: ModelCard, device: str = "auto") -> "Predictor":
        """The predictor of a torch model on `device`: auto, cpu, cuda, cuda:1, mps. Raises ConfigError."""
        from cyclemlp.inference.runtimes.torch import network_of

        return cls(network_of(model, device), card)

    @classmethod
    @contextmanager
    def of_training_model(cls, model: "nn.Module", card: ModelCard, device: "torch.device") -> "Iterator[Predictor]":
        """The predictor of a model that is being trained; afterwards the model is in the mode it was in."""
        from cyclemlp.inference.runtimes.torch import TorchNetwork
        from cyclemlp.models.flops import evaluating

        with evaluating(model):
            yield cls(TorchNetwork(model, device, SizeRule(1)), card)  # as it stands: not in the inference form

    @classmethod
    def load(cls, path: Path | str, device: str = "auto") -> "Predictor":
        """The predictor of a run folder, a `model.safetensors` with `model.json` next to it, or an exported file.

        ONNX (`.onnx`) and OpenVINO (`.xml` with its `.bin`) need no torch. Raises CheckpointError where `path`
        is no such thing or torch is needed but not installed, ConfigError for an unusable device.
        """
        return cls(*load_network(Path(path), device))

    def described_as(self, card: ModelCard) -> "Predictor":
        """The same network under another card: with another crop or window, for example.

        Raises ConfigError for boxes that a network which decodes by itself has dropped.
        """
        if decodes_by_itself(self.network, self.card) and card.detection and self.card.detection:
            refuse_looser(self.card.detection, card.detection)
        return Predictor(self.network, card, self.views, exact=self.exact)

    def with_options(self, options: ViewOptions) -> "Predictor":
        """The same network with the views and windows that these options ask for. Raises ConfigError."""
        predictor = self.with_views(options.scales or (1.0,), flip=options.flip)
        predictor = predictor.with_ground_resolution(options.ground_resolution)
        if not options.exact:
            return predictor.with_windows(options.window, options.overlap)
        if options.window is not None or options.overlap is not None:
            raise ConfigError("--exact is for images in one piece: leave out --window and --overlap")
        return predictor.with_exact()

    def with_value_range(self, words: Sequence[str | float] | str | None) -> "Predictor":
        """The same network for images with other values than it was trained on: (0, 4095), "0 4095" or "per-image".

        None leaves them as the card has them. Raises ConfigError.
        """
        return self if words is None else self.described_as(self.card.with_value_range(words))

    def with_ground_resolution(self, given: str | None) -> "Predictor":
        """The same network for images of this number of metres per pixel, such as "0.5", or, with "keep", of any.

        None leaves it to each GeoTIFF to say its own. Raises ConfigError.
        """
        return self if given is None else self.described_as(card_for_images(self.card, given))

    def with_views(self, scales: Sequence[float] = (1.0,), *, flip: bool = False) -> "Predictor":
        """The same network, which sees images at these factors of their usual size, and mirrored as well with `flip`.

        Segmentation averages over the views, detectors keep the top-scoring box of each object. Better and slower: one
        pass per view. Raises ConfigError for scales that are not usable and for a task without views.
        """
        return Predictor(self.network, self.card, Views(tuple(scales), flip), exact=self.exact)

    def with_windows(self, window: int | None, overlap: int | None = None) -> "Predictor":
        """The same network, which sees images in windows of this edge that share `overlap`, in network pixels.

        None leaves it as the card has it. Objects that are larger than the overlap may be found in pieces. Raises
        ConfigError for sizes that are not usable and for a task without windows.
        """
        if window is None and overlap is None:
            return self
        if not self.task.takes_views:
            raise ConfigError(f"windows are not for {self.card.task} models: leave them out")
        if window is not None and window < MIN_WINDOW:
            raise ConfigError(f"--window {window} is not allowed: {MIN_WINDOW} or more")
        edge = window or self.card.window
        if edge is None:
            raise ConfigError(f"--overlap {overlap} needs the size of the windows: give --window, too")
        if overlap is not None and not 0 <= overlap <= edge // 2:
            raise ConfigError(f"--overlap {overlap} is not allowed: from 0 to {edge // 2}, half the window")
        return self.described_as(replace(self.card, window=edge, overlap=overlap))

    def with_exact(self) -> "Predictor":
        """The same network, whose masks of large images are those of the image in one piece, up to rounding.

        Each block passes over the whole image before the next one does, in windows, and its maps are kept in temporary
        files: memory does not grow with the image. Raises ConfigError for a network that is not one of segmentation, or
        cannot be computed so.
        """
        if "exact" not in self.task.evaluation_options:
            raise ConfigError(f"--exact is not for {self.card.task} models: leave it out")
        if isinstance(self.network, ExportedNetwork):
            raise ConfigError("--exact is not for exported files: give the run folder, or leave it out")
        from cyclemlp.inference.exact import check_exact  # which imports torch

        check_exact(self.network)
        return Predictor(self.network, self.card, self.views, exact=True)

    @overload
    def predict(self, images: ImageInput, *, progress: bool = False, probabilities: bool = False) -> "Prediction": ...

    @overload
    def predict(
        self, images: list[ImageInput] | tuple[ImageInput, ...], *, progress: bool = False, probabilities: bool = False
    ) -> "list[Prediction]": ...

    def predict(
        self,
        images: ImageInput | list[ImageInput] | tuple[ImageInput, ...],
        *,
        progress: bool = False,
        probabilities: bool = False,
    ) -> "Prediction | list[Prediction]":
        """The result for one image, or a list of results for several.

        An image is a path, a Pillow image, or an array (H, W, 3) or (H, W) of uint8 or uint16 values; see
        `decode_image`. `progress` shows a bar for images that take long. With `probabilities` the result of a
        segmentation has those of each pixel, 4 bytes for each class and pixel (a classifier's result always has its
        own). Raises DataError for an unusable image, ConfigError for probabilities of a detector.
        """
        if probabilities and self.card.detection is not None:
            raise ConfigError(f"probabilities are not for {self.card.task} models: their objects have scores")
        if isinstance(images, list | tuple):
            return [self._predict_one(image, progress, probabilities) for image in images]
        return self._predict_one(images, progress, probabilities)

    def predict_pixels(self, pixels: Pixels, *, progress: bool = False, probabilities: bool = False) -> "Prediction":
        """The result for an image that follows the card's rule already, uint8 (H, W, C). Raises DataError."""
        return self._through_network(MeasuredImage(pixels), progress, probabilities)

    def _through_network(self, image: MeasuredImage, progress: bool, probabilities: bool) -> "Prediction":
        seen = ImageThroughNetwork(self.network, self.card, image, self.views, progress, probabilities, self.exact)
        return cast("Prediction", self.task.predict(seen))

    def _predict_one(self, image: ImageInput, progress: bool, probabilities: bool) -> "Prediction":
        given = decode_measured(image, self.card.pixel_rule, self.card.in_chans)
        predictor = self
        if self.card.ground_resolution and isinstance(image, str | Path):
            if (metres := ground_resolution(Path(image))) is None:
                note_missing_reader([Path(image)])
            predictor = self.described_as(card_at(self.card, metres, Path(image)))
        try:
            return predictor._through_network(given, progress, probabilities)
        except DataError as error:
            raise DataError(f"{image if isinstance(image, str | Path) else 'image'}: {error}") from error
