"""Object detection: a box, a class and a score for every object."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cyclemlp.data.drawing import side_by_side
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.held_out_ground import counts_on_its_ground
from cyclemlp.data.objects import DetectionDataset, as_coco, check_size, where_seen
from cyclemlp.data.problems import DataRequest
from cyclemlp.files import JsonMapping, JsonObject, json_list, write_csv, write_lines, write_text
from cyclemlp.heads.detection_options import SHOWN_SCORE, DetectionHead
from cyclemlp.tasks.base import ScoreNames, Task, TrainingParts
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.detection.config import DetectionConfig
from cyclemlp.tasks.detection.demo import DigitsDemo
from cyclemlp.tasks.detection.predict import DetectionResult, find_objects, labelled
from cyclemlp.tasks.detection.scenes import ObjectScenes
from cyclemlp.tasks.looks import NetworkImage
from cyclemlp.tasks.options import PredictionOptions

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn

    from cyclemlp.tasks.detection.metrics import DetectionCounts

COLUMNS = ("class", "score", "left", "top", "right", "bottom")
MEASURES = ("area", "centroid_x", "centroid_y")
"""Further columns of objects with masks."""
OBJECTS_NAME, RESULTS_NAME, TABLE_NAME = "objects.json", "coco_results.json", "objects.csv"
LABELS_NAME = "coco_labels.json"
AP50_SENTENCE = "Average precision is {{:.2f}} % where a {what} has to overlap the label's by half."

DetectorConfigT = TypeVar("DetectorConfigT", bound=DetectionConfig)


class ObjectTask(Task[DetectorConfigT, DetectionDataset, DetectionResult, "DetectionCounts"]):
    """What detection and instance segmentation have in common."""

    has_masks: bool
    """Whether objects are scored by their masks as well."""
    prediction_options = frozenset(
        {"no_pictures", "score_threshold", "nms", "scales", "flip", "window", "overlap", "ground_resolution", "vector"}
    )
    combines_views = "top-scoring boxes of"
    report_examples = 6
    writes_coco = True

    dataset_type = DetectionDataset

    def find_dataset(self, folder: Path) -> DetectionDataset:
        return self.find_requested(folder, DataRequest())

    def find_requested(self, folder: Path, request: DataRequest) -> DetectionDataset:
        return find_dataset(folder, DetectionDataset, request)

    def build_model(self, card: ModelCard, drop_path_rate: float = 0.0) -> "nn.Module":
        from cyclemlp.heads.detection import build_detector

        return build_detector(
            card.model,
            card.head,
            len(card.classes),
            head_width=card.head_width,
            options=card.detection,
            in_chans=card.in_chans,
            drop_path_rate=drop_path_rate,
        )

    def resolve(self, config: DetectorConfigT, dataset: DetectionDataset) -> DetectorConfigT:
        from cyclemlp.tasks.detection.train import resolved
        from cyclemlp.tasks.head_width import with_head_width
        from cyclemlp.tasks.quarter_turns import with_quarter_turns

        return with_quarter_turns(with_head_width(resolved(config, dataset), self.name), dataset.splits["train"].images)

    def training_parts(self, config: DetectorConfigT, dataset: DetectionDataset) -> TrainingParts:
        from cyclemlp.tasks.detection.train import detection_parts

        return detection_parts(config, dataset, self.name)

    def new_counts(self, card: ModelCard, dataset: DetectionDataset) -> "DetectionCounts":
        from cyclemlp.tasks.detection.metrics import DetectionCounts

        limit = (card.detection or DetectionHead()).kept
        return DetectionCounts(
            masks=self.has_masks,
            max_detections=limit,
            category_ids=dataset.category_ids,
            score_threshold=shown_score(card),
        )

    def count(
        self, counts: "DetectionCounts", dataset: DetectionDataset, split: str, index: int, result: DetectionResult
    ) -> None:
        part = dataset.splits[split]
        record, (height, width) = part.records[index], result.image.shape[:2]
        check_size(part.images[index], (height, width), record.size)
        found = result.detections
        if part.part is not None:
            found = found.select(counts_on_its_ground(found.boxes_xyxy, record, part.images[index], part.part))
        counts.add(where_seen(record, result.valid), found, len(dataset.classes))

    def constant_score(self, counts: "DetectionCounts") -> float:
        """Of finding nothing."""
        return 0.0

    def describe_scores(self, counts: "DetectionCounts", card: ModelCard) -> JsonObject:
        return {"most_detections": counts.max_detections}

    def write_scores(
        self, out: Path, counts: "DetectionCounts", dataset: DetectionDataset, split: str
    ) -> dict[str, str]:
        """Write the detections in COCO's results format; for data in another format the labels in COCO's form, too."""
        write_text(out / RESULTS_NAME, json.dumps(counts.results) + "\n")
        files = {"coco_results": str(out / RESULTS_NAME)}
        if dataset.splits[split].annotations is None:
            write_text(out / LABELS_NAME, json.dumps(as_coco(dataset, split)) + "\n")
            files["coco_labels"] = str(out / LABELS_NAME)
        return files

    def score_table(self, report: JsonMapping) -> list[str]:
        return [f"at most {report['most_detections']} objects per image are scored", *super().score_table(report)]

    def draw_example(
        self, dataset: DetectionDataset, split: str, index: int, result: DetectionResult
    ) -> "tuple[str, Image]":
        part = dataset.splits[split]
        labels = labelled(part.records[index], result.classes, result.image)
        return part.images[index].name, side_by_side(result.above(result.shown_score).draw(), labels.draw(scores=False))

    def predict(self, image: NetworkImage) -> DetectionResult:
        return find_objects(image)

    def card_for_prediction(self, card: ModelCard, options: PredictionOptions) -> ModelCard:
        head = card.detection or DetectionHead()
        usual = max(shown_score(card), head.score_threshold)
        threshold = usual if options.score_threshold is None else options.score_threshold
        nms = head.nms if options.nms is None else options.nms
        return replace(card, detection=replace(head, score_threshold=threshold, nms=nms))

    def describe(self, result: DetectionResult) -> JsonObject:
        coco = [{key: entry[key] for key in entry if key != "image_id"} for entry in result.to_coco(0)]
        return super().describe(result) | {"coco": coco}

    def describe_objects(self, result: DetectionResult) -> JsonObject:
        counts = Counter(result.names)
        return {"counts": {name: counts[name] for name in result.classes if counts[name]}, "objects": result.measured()}

    def columns(self, classes: Sequence[str]) -> Sequence[str]:
        return COLUMNS

    def rows(self, entry: JsonMapping) -> Sequence[Sequence[object]]:
        return [[found["class"], f"{found['score']:.4f}", *found["box"]] for found in entry["objects"]]

    def summary(self, entry: JsonMapping) -> str:
        names = [found["class"] for found in entry["objects"]]
        return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names)) or "nothing"

    def finish(self, out: Path, entries: Sequence[JsonMapping]) -> dict[str, str]:
        """Write objects.json, objects.csv and coco_results.json; image ids are 1, 2, ... in the order given."""
        numbered = partial(enumerate, entries, start=1)
        objects = (
            {"id": i, **{key: value for key, value in entry.items() if key != "coco"}} for i, entry in numbered()
        )
        results = ({"image_id": i, **found} for i, entry in numbered() for found in entry["coco"])
        write_lines(out / OBJECTS_NAME, chain(json_list(objects), "\n"))
        write_lines(out / RESULTS_NAME, chain(json_list(results), "\n"))
        measured = any("counts" in entry for entry in entries)
        rows = (
            [entry["image"], *row, *(_measures(found) if measured else ())]
            for entry in entries
            for row, found in zip(self.rows(entry), entry["objects"], strict=True)
        )
        write_csv(out / TABLE_NAME, chain([["image", *COLUMNS, *(MEASURES if measured else ())]], rows))
        files = {"objects": OBJECTS_NAME, "coco_results": RESULTS_NAME, "table": TABLE_NAME}
        return {kind: str(out / name) for kind, name in files.items()}


def shown_score(card: ModelCard) -> float:
    """The score from which on objects are shown and counted: chosen in training, or the default."""
    return SHOWN_SCORE if card.shown_score is None else card.shown_score


def _measures(found: JsonMapping) -> list[object]:
    """The values of `MEASURES`."""
    return [found["area"], *(f"{value:.2f}" for value in found["centroid"])]


class DetectionTask(ObjectTask[DetectionConfig]):
    """Boxes."""

    name = "detection"
    purpose = "Train a network that finds objects and puts a box around each."
    config = DetectionConfig
    has_masks = False
    scenes = ObjectScenes(masks=False)
    scores = ScoreNames("mAP", "AP", ("AP50", "AP75", "APs", "APm", "APl"), {"AP50": AP50_SENTENCE.format(what="box")})
    demo = DigitsDemo()
