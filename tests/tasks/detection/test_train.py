"""Detection runs: batches, losses of images without objects, evaluation in parts, exact continuation."""

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from training_runs import train_detection

from cyclemlp.data.augmentation import BoxAugmentation
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.objects import DetectionDataset, DetectionSplit, Record
from cyclemlp.data.outlines import rle_of_mask
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.heads.detection import build_detector
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.heads.retinanet import RetinaNet
from cyclemlp.inference.evaluate import Evaluator
from cyclemlp.inference.predictor import Predictor
from cyclemlp.models.cyclemlp import SIZES, CycleMLPSizes
from cyclemlp.tasks.base import DEVELOPMENT
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.detection.config import DetectionConfig, DetectionOptimisation, LightHead
from cyclemlp.tasks.detection.decoding import Detections
from cyclemlp.tasks.detection.train import DetectionLoss, aspect_groups, collate
from cyclemlp.tasks.instance_segmentation.task import InstanceSegmentationConfig, InstanceSegmentationTask
from cyclemlp.tasks.options import Length, Machine, PredictionOptions, Recording
from cyclemlp.training.loader import GroupedStream, SampleStream
from cyclemlp.training.state import Objective
from cyclemlp.training.stopping import TrainingStopped

STEPS, STOPPED_IN = 4, 1
SHAPES = ((64, 96), (96, 64), (64, 96), (64, 64), (96, 64))

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def one_block_a_stage() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "cyclemlp_nano", CycleMLPSizes((16, 32, 48, 64), (1, 1, 1, 1), (2, 2, 2, 2)))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of several shapes with two bright squares each, outlined."""
    root, random = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for split in ("train", "val"):
        images: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        (root / split).mkdir()
        for number, (height, width) in enumerate(SHAPES, start=1):
            pixels = random.integers(0, 120, (height, width, 3), dtype=np.uint8)
            for left, top, edge in ((4, 6, 20), (34, 30, 26)):
                pixels[top : top + edge, left : left + edge] += 100
                corners = [left, top, left + edge, top, left + edge, top + edge, left, top + edge]
                place = {"bbox": [left, top, edge, edge], "segmentation": [corners], "area": edge**2, "iscrowd": 0}
                objects.append({"id": len(objects) + 1, "image_id": number, "category_id": 1 + (edge > 20), **place})
            Image.fromarray(pixels).save(root / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        categories = [{"id": 1, "name": "small"}, {"id": 2, "name": "large"}]
        content = {"images": images, "annotations": objects, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


def sample(height: int, width: int, value: float) -> tuple[Tensor, dict[str, Tensor]]:
    masks = torch.ones(1, height, width, dtype=torch.uint8)
    box = torch.tensor([[0.0, 0.0, width, height]])
    return torch.full((3, height, width), value), {"boxes": box, "labels": torch.tensor([0]), "masks": masks}


def test_images_of_a_batch_are_padded_at_the_right_and_the_bottom() -> None:
    images, targets = collate([sample(4, 6, 1.0), sample(5, 2, 2.0)])
    assert images.shape == (2, 3, 5, 6)
    assert (images[0, :, :4] == 1).all()
    assert (images[0, :, 4:] == 0).all()
    assert (images[1, :, :, :2] == 2).all()
    assert (images[1, :, :, 2:] == 0).all()
    assert [target["size"].tolist() for target in targets] == [[4, 6], [5, 2]]
    assert [target["masks"].shape for target in targets] == [(1, 5, 6), (1, 5, 6)]
    assert [int(target["masks"].sum()) for target in targets] == [24, 10]
    assert targets[1]["boxes"].tolist() == [[0, 0, 2, 5]]


@pytest.mark.parametrize("config_type", [DetectionConfig, InstanceSegmentationConfig])
def test_a_batch_without_objects_is_learnt_from(config_type: type[DetectionConfig]) -> None:
    config = config_type(data=Path("d"))
    torch.manual_seed(0)
    model = build_detector("cyclemlp_nano", config.head, 2, head_width=16, options=DetectionHead(head_convs=1)).train()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    samples = [
        (torch.randn(3, *size), {**nothing, "masks": torch.zeros(0, *size, dtype=torch.uint8)})
        for size in ((64, 64), (50, 60))
    ]
    terms = DetectionLoss(config)(model, *collate(samples))
    assert set(terms) == {"loss", *DetectionLoss(config).terms}
    assert all(bool(term.isfinite()) for term in terms.values())
    assert float(terms["loss"].detach()) > 0
    terms["loss"].backward()
    gradients = [parameter.grad for parameter in model.backbone.parameters()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)


def test_whole_images_come_in_batches_of_similar_shapes(data: Path) -> None:
    split = find_dataset(data, DetectionDataset).splits["train"]
    cut, whole = (DetectionConfig(data=data, augmentation=BoxAugmentation(crop_size=edge)) for edge in (64, None))
    assert aspect_groups(cut, split) is None
    assert aspect_groups(whole, split) == [2, -2, 2, 0, -2]


def test_less_is_padded_where_shapes_are_alike() -> None:
    sizes = [(480, 640), (640, 480), (427, 640), (640, 427)] * 25

    def filled(stream: SampleStream | GroupedStream) -> float:
        """Share of the batches' pixels that no image has."""
        given = kept = 0
        for batch in range(100):
            chosen = [sizes[stream[4 * batch + i][0]] for i in range(4)]
            given += 4 * max(h for h, _ in chosen) * max(w for _, w in chosen)
            kept += sum(h * w for h, w in chosen)
        return 1 - kept / given

    plain = SampleStream(100, 0)
    assert filled(plain) > 0.2
    assert filled(GroupedStream(plain, [w > h for h, w in sizes], 4)) < 0.1


def test_parts_of_an_evaluation_are_the_whole(data: Path) -> None:
    torch.manual_seed(0)
    options = DetectionHead(head_convs=1, score_threshold=0.01)
    card = ModelCard("detection", "cyclemlp_nano", "retinanet", ("small", "large"), head_width=16, detection=options)
    model = build_detector("cyclemlp_nano", "retinanet", 2, head_width=16, options=options)
    assert isinstance(model, RetinaNet)
    torch.nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.2)
    torch.nn.init.zeros_(model.head.classification_head.cls_logits.bias)
    evaluator = Evaluator(card, find_dataset(data, DetectionDataset))
    predictor = Predictor.of_model(model, card, "cpu")
    images = evaluator.sample(100)
    whole = evaluator.count(predictor, images)
    parts = [evaluator.count(predictor, images[i::2]) for i in range(2)]
    assert whole is not None
    assert parts[0] is not None
    assert parts[1] is not None
    parts[0].merge(parts[1])
    scores = whole.metrics(card.classes)
    assert scores["mAP"] > 0
    assert parts[0].metrics(card.classes) == scores


def configured(kind: type[DetectionConfig], data: Path, out: Path, **options: Any) -> DetectionConfig:
    """Whole images of several shapes for boxes, crops for masks."""
    crop = 64 if kind is InstanceSegmentationConfig else None
    return kind(
        data=data,
        out=out,
        head_width=16,
        input_scale=1.0,
        length=Length(steps=STEPS),
        optimisation=DetectionOptimisation(batch_size=2, lr=0.01, drop_path=0.3),
        augmentation=BoxAugmentation(crop_size=crop, vertical_flip=0.5),
        detector=LightHead(head_convs=1),
        recording=Recording(evaluations=2, log_every=1),
        machine=Machine(device="cpu", workers=0, seed=3),
        **options,
    )


@pytest.mark.parametrize("kind", [DetectionConfig, InstanceSegmentationConfig])
def test_a_stopped_run_ends_as_an_unbroken_one(
    kind: type[DetectionConfig], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = kind is InstanceSegmentationConfig
    config = configured(kind, data, tmp_path / "whole", **({"development_images": 1} if masks else {}))
    train_detection(config)
    assert ("matched one to one" in (tmp_path / "whole" / "report.html").read_text(encoding="utf-8")) == masks
    usual, calls = Objective.forward, count()

    def interrupted(self: Objective, images: Tensor, targets: Any) -> dict[str, Tensor]:
        if next(calls) == STOPPED_IN:
            signal.raise_signal(signal.SIGTERM)
        return usual(self, images, targets)

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "forward", interrupted)
        with pytest.raises(TrainingStopped):
            train_detection(replace(config, out=tmp_path / "stopped"))
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    train_detection(replace(config, out=tmp_path / "stopped", resume=True))
    whole, stopped = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert stopped == whole


def test_images_for_the_threshold_are_kept_out_of_training(data: Path) -> None:
    task, dataset = InstanceSegmentationTask(), find_dataset(data, DetectionDataset)
    before = dataset.splits["train"]
    used = task.with_development(InstanceSegmentationConfig(data=data, development_images=2), dataset)
    kept_out, train = used.splits[DEVELOPMENT], used.splits["train"]
    assert kept_out.images == (before.images[0], before.images[2])
    assert kept_out.records == (before.records[0], before.records[2])
    assert train.images == before.images[1:2] + before.images[3:]
    assert used.splits["val"] == dataset.splits["val"]
    assert task.with_development(InstanceSegmentationConfig(data=data), dataset) == dataset  # there are too few
    many = replace(dataset, splits={"train": DetectionSplit(before.images * 40, before.records * 40)})
    usual = task.with_development(InstanceSegmentationConfig(data=data), many)
    assert [len(usual.splits[name].images) for name in (DEVELOPMENT, "train")] == [10, 190]
    with pytest.raises(ConfigError, match=r"--development-images 5: .* has 5 training images; give fewer"):
        task.with_development(InstanceSegmentationConfig(data=data, development_images=5), dataset)


def test_the_chosen_threshold_is_that_of_scores_and_predictions(data: Path) -> None:
    """A right object of score 0.8 and a wrong one of 0.5."""
    task, dataset = InstanceSegmentationTask(), find_dataset(data, DetectionDataset)
    card = ModelCard("instance-segmentation", "cyclemlp_nano", "mask-rcnn", dataset.classes)
    mask = np.zeros((40, 40), np.uint8)
    mask[5:25, 5:25] = 1
    record = Record(
        1, (40, 40), np.array([[5, 5, 25, 25]], np.float32), np.zeros(1, int), np.zeros(1, bool), np.array([400.0]),
        (rle_of_mask(mask),),
    )  # fmt: skip
    boxes = np.array([[5, 5, 25, 25], [28, 28, 39, 39]], np.float32)
    found = Detections(boxes, np.array([0.8, 0.5], np.float32), np.zeros(2, int), np.ones((2, 28, 28), np.float32))
    counts = task.new_counts(card, dataset)
    counts.add(record, found, 2)
    assert counts.metrics(dataset.classes)["objects"]["by_IoU"][0]["accuracy"] == 0.5  # at 0.3
    chosen = task.card_after_development(card, counts)
    assert chosen.shown_score == pytest.approx(0.65, abs=0.02)
    assert ModelCard.from_dict(chosen.to_dict()) == chosen
    again = task.new_counts(chosen, dataset)
    again.add(record, found, 2)
    scores = again.metrics(dataset.classes)
    assert scores["objects"]["score_threshold"] == chosen.shown_score
    assert [row["accuracy"] for row in scores["objects"]["by_IoU"]] == [1.0] * 5
    assert task.score_tables(scores)[0].rows[0] == ("0.5", "1", "0", "0", "1", "1", "1")
    head = task.card_for_prediction(chosen, PredictionOptions()).detection
    assert head is not None
    assert head.score_threshold == chosen.shown_score


def test_no_evaluation_counts_an_image_of_another_size_than_annotated(data: Path) -> None:
    """Where too many images are given for all to be read beforehand, too."""
    dataset = find_dataset(data, DetectionDataset)
    val = dataset.splits["val"]
    swapped = replace(val, records=tuple(replace(record, size=record.size[::-1]) for record in val.records))
    card = ModelCard("detection", "resnet18", "retinanet", ("small", "large"), head_width=16)
    predictor = Predictor.of_model(build_detector("resnet18", "retinanet", 2, head_width=16), card, "cpu")
    evaluator = Evaluator(card, replace(dataset, splits={**dataset.splits, "val": swapped}))
    with pytest.raises(DataError, match=r"1.png is 96x64 \(width x height\), its annotation says 64x96 with width and"):
        evaluator.count_all(predictor)
