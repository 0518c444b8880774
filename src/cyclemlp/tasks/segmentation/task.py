"""Semantic segmentation: a class for every pixel."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from cyclemlp.data.chosen_classes import learnt_classes
from cyclemlp.data.drawing import as_rgb, side_by_side
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.masks import IGNORE_INDEX, MaskDataset, MaskSplit
from cyclemlp.data.palettes import read_palette
from cyclemlp.data.problems import DataRequest, listed
from cyclemlp.data.windows import middle_of
from cyclemlp.errors import DataError
from cyclemlp.files import JsonMapping, JsonObject, write_csv, write_png
from cyclemlp.tasks.base import ScoreNames, Task, TrainingParts
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.looks import FloatArray, NetworkImage, Pixels
from cyclemlp.tasks.options import PredictionOptions
from cyclemlp.tasks.score_text import ScoreTable, score_lines
from cyclemlp.tasks.segmentation.area_table import area_tables
from cyclemlp.tasks.segmentation.areas import MAX_CLASSES, ValidationCounts
from cyclemlp.tasks.segmentation.components import COLUMNS, component_row
from cyclemlp.tasks.segmentation.config import SegmentationConfig
from cyclemlp.tasks.segmentation.demo import EarthDemo
from cyclemlp.tasks.segmentation.predict import SegmentationResult, most_probable_classes, segment
from cyclemlp.tasks.segmentation.scenes import MaskScenes, in_words

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn

    from cyclemlp.tasks.registry import Prediction
    from cyclemlp.tasks.segmentation.metrics import ConfusionMatrix

TABLE_NAME = "objects.csv"
_SIDES = "prediction left, labels right"
_LOG = logging.getLogger(__name__)


class SegmentationTask(Task[SegmentationConfig, MaskDataset, SegmentationResult, "ConfusionMatrix"]):
    """Masks: every pixel gets a class."""

    name = "segmentation"
    purpose = "Train a network that gives every pixel a class."
    config = SegmentationConfig
    scores = ScoreNames(
        "mIoU", "IoU", ("pixel_accuracy",), {"pixel_accuracy": "{:.2f} % of the pixels are predicted correctly."}
    )
    evaluation_options = frozenset({*Task.evaluation_options, "exact"})
    prediction_options = frozenset(
        {
            *Task.prediction_options,
            "exact",
            "legend",
            "objects",
            "tint_background",
            "probabilities",
            "vector",
            "simplify",
        }
    )
    max_classes = 255  # this value marks ignored pixels in a mask
    dataset_type = MaskDataset
    demo = EarthDemo()
    scenes = MaskScenes()

    def find_dataset(self, folder: Path) -> MaskDataset:
        return self.find_requested(folder, DataRequest())

    def find_training_data(self, config: SegmentationConfig) -> MaskDataset:
        palette = None if config.palette is None else read_palette(config.palette)
        request = DataRequest(hold_out=config.hold_out, palette=palette, label_field=config.label_field)
        return learnt_classes(self.find_requested(config.data, request), config.class_choice)

    def find_requested(self, folder: Path, request: DataRequest) -> MaskDataset:
        return find_dataset(folder, MaskDataset, request)

    def with_names(self, dataset: MaskDataset, names: tuple[str, ...]) -> MaskDataset:
        return replace(dataset, classes=names)  # masks without names may have fewer classes

    def fits(self, dataset: MaskDataset, classes: Sequence[str]) -> bool:
        """Without names, only the number of classes can be compared, which is worth a note."""
        if super().fits(dataset, classes):
            return True
        if dataset.named or len(dataset.classes) > len(classes):
            return False
        names = listed(classes, 6)
        _LOG.warning("note: %s names no classes: its 0, 1, ... count as %s; classes.txt says it", dataset.root, names)
        return True

    def build_model(self, card: ModelCard, drop_path_rate: float = 0.0) -> "nn.Module":
        from cyclemlp.tasks.segmentation.train import network_of

        return network_of(card, drop_path_rate)

    def resolve(self, config: SegmentationConfig, dataset: MaskDataset) -> SegmentationConfig:
        from cyclemlp.tasks.head_width import with_head_width
        from cyclemlp.tasks.quarter_turns import with_quarter_turns

        return with_quarter_turns(with_head_width(config, self.name), dataset.splits["train"].images)

    def training_parts(self, config: SegmentationConfig, dataset: MaskDataset) -> TrainingParts:
        from cyclemlp.tasks.segmentation.train import segmentation_parts

        return segmentation_parts(config, dataset)

    def new_counts(self, card: ModelCard, dataset: MaskDataset) -> "ConfusionMatrix":
        from cyclemlp.tasks.segmentation.metrics import ConfusionMatrix

        return ConfusionMatrix(len(card.classes))

    def count(
        self, counts: "ConfusionMatrix", dataset: MaskDataset, split: str, index: int, result: SegmentationResult
    ) -> None:
        pairs = dataset.splits[split]
        mask, target = pairs.masks[index], pairs.target(index)
        if target.shape != result.mask.shape:
            sizes = [f"{width} x {height}" for height, width in (target.shape, result.mask.shape)]
            name = pairs.images[index].name
            raise DataError(f"{mask} is {sizes[0]} pixels, its image {name} {sizes[1]}: make them equal")
        _add(counts, pairs, index, result.mask, target)

    def in_windows(self, dataset: MaskDataset, split: str, index: int) -> bool:
        return dataset.splits[split].size_in_windows(index) is not None

    def count_strip(
        self, counts: "ConfusionMatrix", dataset: MaskDataset, split: str, index: int, rows: slice, maps: FloatArray
    ) -> None:
        pairs = dataset.splits[split]
        target = pairs.window_target(index, (rows, slice(0, maps.shape[-1])))
        _add(counts, pairs, index, most_probable_classes([maps])[0], target, rows.start)

    def card_after_validation(self, card: ModelCard, counts: "ConfusionMatrix") -> ModelCard:
        found = counts.validation_counts()
        return card if found is None else replace(card, validation_counts=found.to_dict())

    def describe_scores(self, counts: "ConfusionMatrix", card: ModelCard) -> JsonObject:
        return {"confusion": counts.counts.tolist()} if len(card.classes) <= MAX_CLASSES else {}

    def check_card(self, card: ModelCard) -> None:
        if card.validation_counts:
            ValidationCounts.from_dict(card.validation_counts, len(card.classes))

    def constant_score(self, counts: "ConfusionMatrix") -> float | None:
        return counts.constant_miou()

    def score_table(self, report: JsonMapping) -> list[str]:
        metrics = report["metrics"]
        rows = [*metrics["IoU"].items(), ("mean", metrics["mIoU"]), ("pixel accuracy", metrics["pixel_accuracy"])]
        return score_lines(rows, "IoU")

    def report_tables(
        self, images: Sequence[Path], counts: "ConfusionMatrix", classes: Sequence[str]
    ) -> list[ScoreTable]:
        return area_tables(images, counts.validation_counts(), classes)

    def draw_example(
        self, dataset: MaskDataset, split: str, index: int, result: SegmentationResult
    ) -> "tuple[str, Image]":
        pairs = dataset.splits[split]
        return f"{pairs.images[index].name}: {_SIDES}", _with_labels(result, pairs.target(index))

    def draw_part(
        self, dataset: MaskDataset, split: str, index: int, predict: "Callable[[Pixels], Prediction]"
    ) -> "tuple[str, Image]":
        pairs = dataset.splits[split]
        size = pairs.size_in_windows(index)
        assert size is not None  # it is not called otherwise
        rows, columns = middle_of(size)
        pixels, target = pairs.read(index, (rows, columns))
        result = cast("SegmentationResult", predict(pixels))
        place = f"columns {columns.start} to {columns.stop}, rows {rows.start} to {rows.stop}"
        return f"{pairs.images[index].name}, {place}: {_SIDES}", _with_labels(result, target)

    def predict(self, image: NetworkImage) -> SegmentationResult:
        return segment(image)

    def image_files(self, options: PredictionOptions) -> Mapping[str, str]:
        legend = {"legend": "_legend.png"} if options.legend in (None, "file") else {}
        return {"mask": "_mask.png", **super().image_files(options), **legend}

    def draw(self, result: SegmentationResult, options: PredictionOptions) -> "Image":
        return result.draw(legend=options.legend == "inside", tint_background=options.tint_background)

    def write(self, result: SegmentationResult, files: Mapping[str, Path], options: PredictionOptions) -> None:
        write_png(files["mask"], result.class_image())
        if "legend" in files:
            write_png(files["legend"], result.legend(tint_background=options.tint_background))
        super().write(result, files, options)

    def describe_objects(self, result: SegmentationResult) -> JsonObject:
        found = result.objects()
        counts = Counter(entry["class"] for entry in found)
        return {"counts": {name: counts[name] for name in result.classes if counts[name]}, "objects": found}

    def finish(self, out: Path, entries: Sequence[JsonMapping]) -> dict[str, str]:
        """Write objects.csv where objects were asked for."""
        if not any("objects" in entry for entry in entries):
            return {}
        rows = ([entry["image"], *component_row(found)] for entry in entries for found in entry.get("objects", ()))
        write_csv(out / TABLE_NAME, chain([["image", *COLUMNS]], rows))
        return {"table": str(out / TABLE_NAME)}

    def columns(self, classes: Sequence[str]) -> Sequence[str]:
        return classes

    def rows(self, entry: JsonMapping) -> Sequence[Sequence[object]]:
        return [[f"{share:.6f}" for share in entry["shares"].values()]]

    def summary(self, entry: JsonMapping) -> str:
        largest = sorted(entry["shares"].items(), key=lambda item: -item[1])[:5]
        shares = ", ".join(f"{name} {share * 100:.1f} %" for name, share in largest if share)
        return shares + in_words(entry.get("estimated_areas", {}), [name for name, _ in largest])


def _add(
    counts: "ConfusionMatrix", pairs: MaskSplit, index: int, predicted: Pixels, target: Pixels, top: int = 0
) -> None:
    """Count the rows of an image from `top` on, by image or by held-out block of the ground."""
    import torch

    units = [(str(index), target)]
    if pairs.part is not None and pairs.part.validates:
        window = slice(top, top + target.shape[0]), slice(0, target.shape[1])
        blocks = pairs.part.held_out(pairs.images[index], *window)
        units = [(name, np.where(inside, target, np.uint8(IGNORE_INDEX))) for name, inside in blocks]
    try:
        for name, own in units:
            counts.update(torch.from_numpy(predicted), torch.from_numpy(own), name)
    except DataError as error:
        raise DataError(f"{pairs.masks[index]}: {error}") from error


def _with_labels(result: SegmentationResult, target: Pixels) -> "Image":
    """A prediction next to its labels; ignored pixels are not painted."""
    counted = target != IGNORE_INDEX
    labels = SegmentationResult(np.where(counted, target, 0), result.classes, result.image)
    right = np.where(counted[..., None], np.asarray(labels.draw(legend=False)), np.asarray(as_rgb(result.image)))
    return side_by_side(result.draw(legend=False), right)
