"""Evaluation while training: the class of every pixel of the validation images, against the masks."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.data.images import read_image, read_mask
from cyclemlp.data.masks import MaskSplit
from cyclemlp.data.transforms import Normalisation, normalise
from cyclemlp.errors import DataError
from cyclemlp.tasks.segmentation import ConfusionMatrix

PredictLogits = Callable[[nn.Module, Tensor], Tensor]
"""From a network and a normalised image (1, C, H, W) to logits (1, classes, H, W); by windows, for example."""


def whole_image(model: nn.Module, image: Tensor, input_scale: float = 1.0) -> Tensor:
    """The simplest `PredictLogits`: the network on the whole image, enlarged by `input_scale`."""
    size = image.shape[-2:]
    if input_scale != 1.0:
        larger = [round(edge * input_scale) for edge in size]
        image = F.interpolate(image, larger, mode="bilinear", align_corners=False)
    logits: Tensor = model(image)
    if logits.shape[-2:] != size:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    return logits


class Evaluator:
    """Counts right and wrong pixels of a network on a split, image by image at full size."""

    def __init__(
        self, split: MaskSplit, classes: tuple[str, ...], normalisation: Normalisation, predict: PredictLogits
    ) -> None:
        self.classes = classes
        self._pairs = list(zip(split.images, split.masks, strict=True))
        self._normalisation = normalisation
        self._predict = predict

    def count(
        self,
        model: nn.Module,
        device: torch.device,
        *,
        most: int | None = None,
        part: tuple[int, int] = (0, 1),
        stop: Callable[[], bool] = bool,
    ) -> ConfusionMatrix | None:
        """Counts over at most `most` images, spread evenly; with `part` (i, n) only every n-th of them from i on.

        None where `stop()` turned true before the end. The network is left in the mode it was in.
        """
        matrix = ConfusionMatrix(len(self.classes))
        was_training = model.training
        model.eval()
        try:
            for image, mask in self._chosen(most)[part[0] :: part[1]]:
                if stop():
                    return None
                self._count(matrix, model, device, image, mask)
        finally:
            model.train(was_training)
        return matrix

    def _count(self, matrix: ConfusionMatrix, model: nn.Module, device: torch.device, image: Path, mask: Path) -> None:
        pixels = normalise(read_image(image), self._normalisation).unsqueeze(0).to(device)
        with torch.no_grad():
            prediction = self._predict(model, pixels)[0].argmax(0).cpu()
        try:
            matrix.update(prediction, torch.from_numpy(read_mask(mask)))
        except DataError as error:
            raise DataError(f"{mask}: {error}") from error

    def _chosen(self, most: int | None) -> list[tuple[Path, Path]]:
        count = len(self._pairs)
        if most is None or most >= count:
            return self._pairs
        return [self._pairs[i * count // most] for i in range(most)]
