"""Regression: a value for every pixel."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cyclemlp.tasks.base import ScoreNames, Task, TrainingParts
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.looks import NetworkImage
from toy_task.config import RegressionConfig
from toy_task.data import ValueDataset, find_values
from toy_task.predict import Distances, RegressionResult, regress

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn


class PixelRegressionTask(Task[RegressionConfig, ValueDataset, RegressionResult, Distances]):
    """Every pixel gets a value from 0 to 1."""

    name = "pixel-regression"
    purpose = "Train a network that gives every pixel a value."
    config = RegressionConfig
    drawing = ("values", "_values.png")
    scores = ScoreNames("closeness", "closeness_of", ())

    def find_dataset(self, folder: Path) -> ValueDataset:
        return find_values(folder, "train", "val")

    def find_evaluation_data(self, folder: Path, split: str, card: ModelCard) -> ValueDataset:
        return find_values(folder, split)

    def build_model(self, card: ModelCard, drop_path_rate: float = 0.0) -> "nn.Module":
        from cyclemlp.heads.segmentation import build_segmentation_model

        return build_segmentation_model(
            card.model, card.head, 1, head_width=card.head_width, drop_path_rate=drop_path_rate
        )

    def training_parts(self, config: RegressionConfig, dataset: ValueDataset) -> TrainingParts:
        from toy_task.train import regression_parts

        return regression_parts(config, dataset)

    def new_counts(self, card: ModelCard, dataset: ValueDataset) -> Distances:
        return Distances()

    def count(self, counts: Distances, dataset: ValueDataset, split: str, index: int, result: RegressionResult) -> None:
        distances = np.abs(result.values - dataset.splits[split].target(index))
        counts.total += float(distances.sum(dtype=np.float64))
        counts.pixels += distances.size

    def draw_example(
        self, dataset: ValueDataset, split: str, index: int, result: RegressionResult
    ) -> "tuple[str, Image]":
        return dataset.splits[split].images[index].name, result.draw()

    def predict(self, image: NetworkImage) -> RegressionResult:
        return regress(image)

    def columns(self, classes: Sequence[str]) -> Sequence[str]:
        return ["mean"]

    def rows(self, entry: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        return [[entry["mean"]]]

    def summary(self, entry: Mapping[str, Any]) -> str:
        return f"mean {entry['mean']:.3f}"
