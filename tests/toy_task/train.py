"""What a regression run trains: network, loss and samples."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import default_collate

from cyclemlp.data.images import read_image
from cyclemlp.data.transforms import Normalisation
from cyclemlp.tasks.base import TrainingParts
from cyclemlp.tasks.card import ModelCard, build_model
from cyclemlp.tasks.loss import TaskLoss
from cyclemlp.tasks.parameter_groups import decay_groups
from toy_task.config import RegressionConfig
from toy_task.data import ValueDataset, ValueSplit


class ValueSamples:
    """Normalised images (3, H, W) and their values (H, W), mirrored at random."""

    def __init__(self, split: ValueSplit) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(read_image(self._split.images[index])).permute(2, 0, 1)
        image, values = Normalisation()(pixels.float() / 255), torch.from_numpy(self._split.target(index))
        return (image.flip(-1), values.flip(-1)) if torch.rand(()) < 0.5 else (image, values)


class DistanceLoss(TaskLoss):
    """The mean distance of predicted values (B, 1, H, W) from the labels (B, H, W)."""

    def __init__(self, distance: str) -> None:
        super().__init__()
        self._distance = F.l1_loss if distance == "absolute" else F.mse_loss

    def forward(self, model: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"loss": self._distance(model(images).float().squeeze(1), targets)}


def regression_parts(config: RegressionConfig, dataset: ValueDataset) -> TrainingParts:
    """Network, loss and samples of a run."""
    card = ModelCard.of_run("pixel-regression", config, dataset, head="semantic-fpn")
    return TrainingParts(
        card,
        build_model(card),
        DistanceLoss(config.distance),
        ValueSamples(dataset.splits["train"]),
        partial(decay_groups, weight_decay=config.optimisation.weight_decay),
        default_collate,
    )
