"""Image classification: a class for every image."""

import io
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from cyclemlp.data.chosen_classes import with_classes
from cyclemlp.data.datasets import ClassifiedDataset
from cyclemlp.data.formats.class_folders import EVERYTHING, read_split
from cyclemlp.data.formats.layout import folder_of_split
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.problems import DataRequest
from cyclemlp.data.resizing import SQUARE_RULES
from cyclemlp.errors import ConfigError
from cyclemlp.files import JsonMapping, JsonObject, atomic_write, json_list, write_csv, write_lines
from cyclemlp.tasks.base import ScoreNames, Task, TrainingParts
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.classification.config import ClassificationConfig
from cyclemlp.tasks.classification.crops import note, note_cropped
from cyclemlp.tasks.classification.predict import ClassificationResult, classify
from cyclemlp.tasks.looks import NetworkImage
from cyclemlp.tasks.options import EvaluationOptions
from cyclemlp.tasks.score_text import MAX_CLASSES_LISTED, score_lines
from cyclemlp.tasks.split_of_run import hold_out_of_run, refuse_other_data

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from torch import nn

    from cyclemlp.tasks.classification.metrics import LabelCounts, Mistake

TABLE_NAME, JSON_NAME = "predictions.csv", "predictions.json"
CONFUSION_IMAGE_NAME, WRONG_NAME = "confusion.png", "wrong.csv"
MAX_CONFUSED_PAIRS = 5
"""Pairs of classes that the table names as most confused."""


class ClassificationTask(Task[ClassificationConfig, ClassifiedDataset, ClassificationResult, "LabelCounts"]):
    """Labels: every image gets a class."""

    name = "classification"
    purpose = "Train a network that gives every image a class."
    config = ClassificationConfig
    scores = ScoreNames(
        "top1",
        "accuracy",
        ("top5",),
        {
            "top1": "{:.2f} % of the images are predicted correctly.",
            "top5": "The label is among the five most probable classes for {:.2f} % of the images.",
        },
        optional=frozenset({"top5"}),
    )
    max_classes = 100_000
    dataset_type = ClassifiedDataset
    takes_views = False
    evaluation_options = frozenset({"crop", "image_size"})
    prediction_options = frozenset({"no_pictures"})
    report_examples = 12
    report_files = ("confusion.csv",)
    drawing = ("picture", "_label.png")

    def find_dataset(self, folder: Path) -> ClassifiedDataset:
        return self.find_requested(folder, DataRequest())

    def find_requested(self, folder: Path, request: DataRequest) -> ClassifiedDataset:
        return find_dataset(folder, ClassifiedDataset, request)

    def find_evaluation_data(self, folder: Path, split: str, card: ModelCard) -> ClassifiedDataset:
        """One split, labelled by the network's classes; no other split has to exist."""
        # Also the name of a merge, for data whose folders have it.
        names = tuple(dict.fromkeys((*card.data_classes, *card.classes)))
        if not folder_of_split(folder, split).is_dir():
            refuse_other_data(card, folder, split, EVERYTHING)
        images = read_split(folder, split, names, hold_out_of_run(card, folder, split))
        dataset = ClassifiedDataset(folder, names, {split: images})
        dataset = with_classes(dataset, card.class_choice)
        note_cropped(dataset.splits[split].images, card)
        return dataset

    def check_card(self, card: ModelCard) -> None:
        if card.resize not in SQUARE_RULES:
            raise ConfigError(f"resize {card.resize!r}: allowed are {', '.join(SQUARE_RULES)}")
        if (card.image_size or 0) < 1 or not 0 < (card.crop_pct or 0) <= 1:
            raise ConfigError(
                f"image_size {card.image_size}, crop_pct {card.crop_pct}: a size, and a share above 0 to 1"
            )

    def build_model(self, card: ModelCard, drop_path_rate: float = 0.0) -> "nn.Module":
        from cyclemlp.models.classifiers import create_classifier

        return create_classifier(
            card.model,
            len(card.classes),
            image_size=card.image_size or 224,
            in_chans=card.in_chans,
            drop_path_rate=drop_path_rate,
            model_options=card.model_options,
        )

    def resolve(self, config: ClassificationConfig, dataset: ClassifiedDataset) -> ClassificationConfig:
        from cyclemlp.tasks.classification.train import with_image_size
        from cyclemlp.tasks.quarter_turns import with_quarter_turns

        return with_quarter_turns(with_image_size(config, dataset), dataset.splits["train"].images)

    def training_parts(self, config: ClassificationConfig, dataset: ClassifiedDataset) -> TrainingParts:
        from cyclemlp.tasks.classification.train import classification_parts

        return classification_parts(config, dataset)

    def new_counts(self, card: ModelCard, dataset: ClassifiedDataset) -> "LabelCounts":
        from cyclemlp.tasks.classification.metrics import LabelCounts

        return LabelCounts(len(card.classes))

    def count(
        self, counts: "LabelCounts", dataset: ClassifiedDataset, split: str, index: int, result: ClassificationResult
    ) -> None:
        import torch

        from cyclemlp.tasks.classification.metrics import Mistake

        labels = dataset.splits[split]
        label, predicted = labels.labels[index], int(result.probabilities.argmax())
        counts.update(torch.from_numpy(result.probabilities)[None], torch.tensor([label]))
        if predicted != label:
            probability = float(result.probabilities[predicted])
            counts.mistakes.append(Mistake(labels.images[index], label, predicted, probability))

    def constant_score(self, counts: "LabelCounts") -> float | None:
        images = counts.confusion.sum(1)
        return int(images.max()) / total if (total := int(images.sum())) else None

    def card_for_evaluation(self, card: ModelCard, options: EvaluationOptions) -> ModelCard:
        if options.crop is not None and not 0 < options.crop <= 1:
            raise ConfigError(f"--crop {options.crop:g} is not allowed: above 0 to 1; 0.875 is the authors'")
        if options.crop is not None and card.resize != "crop":
            raise ConfigError(f"--crop {options.crop:g}: the run was trained with --resize {card.resize}; leave it out")
        if options.image_size is not None and options.image_size != card.image_size:
            from cyclemlp.models.classifiers import check_other_size

            check_other_size(card.model, card.image_size or 0, options.image_size)
        crop, size = options.crop or card.crop_pct, options.image_size or card.image_size
        return replace(card, crop_pct=crop, image_size=size)

    def describe_scores(self, counts: "LabelCounts", card: ModelCard) -> JsonObject:
        from cyclemlp.tasks.classification.metrics import most_confused

        confused = most_confused(counts.confusion, card.classes, MAX_CONFUSED_PAIRS)
        return {"most_confused": confused, "image_size": card.image_size, "crop": card.crop_pct} | (
            {} if card.resize == "crop" else {"resize": card.resize}
        )

    def write_scores(self, out: Path, counts: "LabelCounts", dataset: ClassifiedDataset, split: str) -> dict[str, str]:
        """Write the confusion matrix, as a table and drawn, and the images that were predicted wrongly."""
        from cyclemlp.tasks.classification.confusion import CONFUSION_NAME, write_confusion

        figure = write_confusion(out, counts.confusion.numpy(), dataset.classes)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150)
        with atomic_write(out / CONFUSION_IMAGE_NAME) as part:
            part.write_bytes(buffer.getbuffer())
        write_csv(out / WRONG_NAME, _wrong_rows(counts.mistakes, dataset.classes))
        names = {"confusion": CONFUSION_NAME, "confusion_picture": CONFUSION_IMAGE_NAME, "wrong": WRONG_NAME}
        return {kind: str(out / name) for kind, name in names.items()}

    def score_table(self, report: JsonMapping) -> list[str]:
        metrics = report["metrics"]
        classes = list(metrics["accuracy"].items())
        rows = [*(classes if len(classes) <= MAX_CLASSES_LISTED else []), ("top-1", metrics["top1"])]
        rows += [("top-5", metrics["top5"])] if metrics["top5"] is not None else []
        how = f"--resize {report['resize']}" if "resize" in report else f"crop {report['crop']:g}"
        seen = f"images of {report['image_size']} pixels, {how}"
        confused = [f"{count} of {name} predicted as {other}" for name, other, count in report["most_confused"]]
        return [seen, *score_lines(rows, "accuracy"), *confused]

    def draw_example(
        self, dataset: ClassifiedDataset, split: str, index: int, result: ClassificationResult
    ) -> "tuple[str, Image]":
        path = dataset.splits[split].images[index]
        return f"{path.parent.name}/{path.name}", result.draw()

    def report_figures(
        self, run_dir: Path, counts: "LabelCounts", classes: tuple[str, ...]
    ) -> "list[tuple[str, Figure]]":
        """The confusion matrix, which is written to the run folder as well."""
        from cyclemlp.tasks.classification.confusion import write_confusion

        return [("Confusion matrix", write_confusion(run_dir, counts.confusion.numpy(), classes))]

    def predict(self, image: NetworkImage) -> ClassificationResult:
        return classify(image)

    def columns(self, classes: Sequence[str]) -> Sequence[str]:
        return ("label", "probability")

    def rows(self, entry: JsonMapping) -> Sequence[Sequence[object]]:
        return [[entry["label"], f"{entry['top5'][entry['label']]:.6f}"]]

    def summary(self, entry: JsonMapping) -> str:
        return ", ".join(f"{name} {share * 100:.1f} %" for name, share in entry["top5"].items())

    def finish(self, out: Path, entries: Sequence[JsonMapping]) -> dict[str, str]:
        """Write predictions.csv, with a row for each image, and predictions.json."""
        places = max(len(entry["top5"]) for entry in entries)
        further = [name for place in range(2, places + 1) for name in (f"label_{place}", f"probability_{place}")]
        rows = (
            [entry["image"], *(cell for name, share in entry["top5"].items() for cell in (name, f"{share:.6f}"))]
            for entry in entries
        )
        write_csv(out / TABLE_NAME, chain([["image", "label", "probability", *further]], rows))
        note([entry["image"] for entry in entries if "seen" in entry], len(entries))
        write_lines(out / JSON_NAME, chain([f'{{"task": "{self.name}", "images": '], json_list(entries), ["}\n"]))
        return {"table": str(out / TABLE_NAME), "predictions": str(out / JSON_NAME)}


def _wrong_rows(mistakes: "Sequence[Mistake]", classes: Sequence[str]) -> list[list[str]]:
    """The most confident mistakes first: among them are wrong labels."""
    rows: list[list[str]] = [["image", "class", "taken_for", "probability"]]
    for image, label, predicted, probability in sorted(mistakes, key=lambda mistake: -mistake.probability):
        rows.append([str(image), classes[label], classes[predicted], f"{probability:.4f}"])
    return rows
