"""A run in double precision, without anything random in a step, so that batches can be compared with a larger one.

As a program it is torchrun and the two processes that torchrun starts: `two_processes.py OUT`.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.utils.data import default_collate

from cyclemlp.data.masks import MaskDataset, MaskSplit
from cyclemlp.inference.evaluate import Evaluator
from cyclemlp.tasks.base import TrainingParts
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.loss import TaskLoss
from cyclemlp.tasks.options import Length, Machine, Optimisation, Recording, RunConfig
from cyclemlp.tasks.parameter_groups import decay_groups
from cyclemlp.training.fabric import build_fabric
from cyclemlp.training.loop import fit
from cyclemlp.training.run_folder import open_run

IMAGES = 12


class Numbers:
    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        image = torch.randn(3, 8, 8, generator=generator, dtype=torch.float64)
        return image, image.mean(0, keepdim=True) ** 2


class Network(nn.Module):
    """Like a detector, it is trained through another method than `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1)).double()

    def losses(self, images: Tensor, targets: Tensor) -> Tensor:
        return (self.layers(images) - targets).square().mean()


class NetworkLoss(TaskLoss):
    def forward(self, model: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"loss": cast("Network", model).losses(images, targets)}


def train_numbers(out: Path, **optimisation: Any) -> dict[str, Tensor]:
    """Train for 5 steps and return the weights."""
    config = RunConfig(
        data=out,
        out=out,
        length=Length(steps=5),
        optimisation=Optimisation(lr=0.05, lr_batch=8, warmup=0.0, clip_norm=0.1, **optimisation),
        recording=Recording(evaluations=1, log_every=1),
        machine=Machine(device="cpu", workers=0),
    )
    fabric = build_fabric(config)
    torch.manual_seed(0)
    parts = TrainingParts(
        ModelCard("segmentation", "cyclemlp_nano", "semantic-fpn", ("a", "b")),
        Network(),
        NetworkLoss(),
        Numbers(),
        lambda model: decay_groups(model, weight_decay=0.05),
        default_collate,
    )
    evaluator = Evaluator(parts.card, MaskDataset(out, parts.card.classes, {"val": MaskSplit((), ())}))
    if fabric.is_global_zero:
        open_run(config)
    state, evaluations = fabric.launch(lambda fabric: fit(fabric, config, parts, evaluator, time.monotonic()))
    if evaluations.recorder is not None:
        evaluations.recorder.close()
    return dict(state.model.state_dict())


def train_in_one_of_two(out: str) -> None:
    weights = train_numbers(Path(out), batch_size=2, accumulate=2)
    torch.save(weights, f"{out}-{os.environ['RANK']}.pt")


if __name__ == "__main__":
    # What `torchrun --standalone --nproc-per-node=2` calls, with processes that need not import everything again.
    launch = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id="test", rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        max_restarts=0, start_method="fork",
    )  # fmt: skip
    elastic_launch(launch, train_in_one_of_two)(sys.argv[1])
