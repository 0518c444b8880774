"""Runs several trainings one after the other, each in a process of its own, some of which kill themselves.

Forked from one process that has imported everything, a run takes a second and not ten. Standard input: a JSON list of
runs. Standard output: the JSON list of their exit statuses, negative for a signal. Every run uses a network with
dropout, stochastic depth and BatchNorm, augmentation, and a moving average.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image
from timm.layers import DropPath
from torch import Tensor, nn

from cyclemlp import api
from cyclemlp.data.augmentation import MaskAugmentation
from cyclemlp.files import atomic_write
from cyclemlp.tasks.options import Length, Machine, Optimisation, Recording
from cyclemlp.tasks.segmentation import train as segmentation_module
from cyclemlp.tasks.segmentation.config import Loss, SegmentationConfig
from cyclemlp.training import checkpoints, loop
from cyclemlp.training.checkpoints import LAST
from cyclemlp.training.state import TrainingState
from cyclemlp.training.stopping import TrainingStopped

STOPPED = 3


class RandomNetwork(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.2))
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1))
        self.drop_path = DropPath(0.3)
        self.classifier = nn.Conv2d(8, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = x + self.drop_path(self.block(x))
        logits: Tensor = self.classifier(x)
        return logits


def configure(run: dict[str, Any]) -> SegmentationConfig:
    return SegmentationConfig(
        data=Path(run["data"]),
        out=Path(run["out"]),
        resume=run.get("resume", False),
        length=Length(steps=run["steps"]),
        optimisation=Optimisation(batch_size=2, lr=0.01),
        augmentation=MaskAugmentation(crop_size=32, rare_class_crops=0.5, vertical_flip=0.5, hue=0.1),
        loss=Loss(class_weights="sqrt-inverse", dice=0.5),
        recording=Recording(evaluations=3, checkpoint_every=run.get("every", 1), log_every=1),
        machine=Machine(device="cpu", workers=run["workers"], seed=3),
    )


def kill_in_step(step: int, signum: int, *, group: bool) -> None:
    """With `group` the signal goes to the processes that read images, too, as `timeout` sends it.

    Half of the step is done then: the gradients are computed, the weights are not yet changed."""
    usual = loop.accumulate_gradients

    def accumulate_gradients(state: TrainingState, batches: Iterator[Any]) -> dict[str, Tensor]:
        losses = usual(state, batches)
        if state.step == step:
            (os.killpg if group else os.kill)(os.getpid(), signum)
        return losses

    patch.object(loop, "accumulate_gradients", accumulate_gradients).start()


def kill_while_writing(number: int) -> None:
    """Half of the checkpoint of that number is on the disk then."""
    usual = atomic_write
    written: list[Path] = []

    @contextmanager
    def deadly(path: Path) -> Iterator[Path]:
        with usual(path) as part:
            yield part
            written.append(path)
            if [each.name for each in written].count(LAST) == number:
                os.truncate(part, part.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

    patch.object(checkpoints, "atomic_write", deadly).start()


def main(run: dict[str, Any]) -> int:
    torch.set_num_threads(1)
    if "kill_in_step" in run:
        group = run.get("group", False)
        if group:
            os.setpgid(0, 0)
        kill_in_step(run["kill_in_step"], getattr(signal, run.get("signal", "SIGKILL")), group=group)
    if "kill_while_writing" in run:
        kill_while_writing(run["kill_while_writing"])
    patch.object(
        segmentation_module, "build_segmentation_model", lambda _b, _h, classes, **_: RandomNetwork(classes)
    ).start()
    try:
        api.train_segmentation(configure(run))
    except TrainingStopped:
        return STOPPED
    return 0


def in_own_process(run: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        status = main(run)
    except BaseException:  # noqa: BLE001  a forked child must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    Image.init()  # imports Pillow's formats once for all
    print(json.dumps([in_own_process(run) for run in json.load(sys.stdin)]))  # noqa: T201
