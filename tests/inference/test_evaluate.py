from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

from cyclemlp.data.masks import MaskDataset, MaskSplit
from cyclemlp.errors import DataError
from cyclemlp.inference.evaluate import Evaluator
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard


class BrightestChannel(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


@pytest.fixture
def predictor() -> Predictor:
    card = ModelCard("segmentation", "cyclemlp_nano", "semantic-fpn", classes=("red", "green", "blue"))
    return Predictor.of_model(BrightestChannel(), card, device="cpu")


def write_pair(folder: Path, name: str, predicted: list[list[int]], labels: list[list[int]]) -> tuple[Path, Path]:
    """An image whose brightest channels are `predicted`, and its mask."""
    image = np.eye(3, dtype=np.uint8)[np.array(predicted)] * 255
    Image.fromarray(image).save(folder / f"{name}.png")
    Image.fromarray(np.array(labels, dtype=np.uint8)).save(folder / f"{name}_mask.png")
    return folder / f"{name}.png", folder / f"{name}_mask.png"


def split_of(*pairs: tuple[Path, Path]) -> MaskSplit:
    return MaskSplit(tuple(image for image, _ in pairs), tuple(mask for _, mask in pairs))


def evaluate(predictor: Predictor, split: MaskSplit) -> Mapping[str, Any]:
    dataset = MaskDataset(Path(), predictor.card.classes, {"val": split})
    return Evaluator(predictor.card, dataset).count_all(predictor).metrics(predictor.card.classes)


def test_pixels_of_images_of_all_sizes_count_alike(predictor: Predictor, tmp_path: Path) -> None:
    split = split_of(
        write_pair(tmp_path, "a", [[0, 0], [1, 1]], [[0, 1], [1, 1]]),
        write_pair(tmp_path, "b", [[1, 0, 0]], [[1, 255, 0]]),
    )
    metrics = evaluate(predictor, split)
    # red: 2 right of 3 in the union; green: 3 of 4; 5 of 6 pixels right
    assert metrics["IoU"] == {"red": pytest.approx(2 / 3), "green": pytest.approx(3 / 4), "blue": None}
    assert metrics["mIoU"] == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert metrics["pixel_accuracy"] == pytest.approx(5 / 6)


def test_mask_of_another_size_is_named(predictor: Predictor, tmp_path: Path) -> None:
    split = split_of(write_pair(tmp_path, "a", [[0, 0, 0]], [[0, 0]]))
    with pytest.raises(DataError, match=r"a_mask.png is 2 x 1 pixels, its image a.png 3 x 1: make them equal"):
        evaluate(predictor, split)


def test_mask_value_outside_the_classes_is_named(predictor: Predictor, tmp_path: Path) -> None:
    split = split_of(write_pair(tmp_path, "a", [[0, 0]], [[0, 9]]))
    with pytest.raises(DataError, match=r"a_mask.png: mask value 9 is not a class"):
        evaluate(predictor, split)


def test_unreadable_image_is_never_skipped(predictor: Predictor, tmp_path: Path) -> None:
    pairs = [write_pair(tmp_path, name, [[0, 0]], [[0, 0]]) for name in ("a", "b")]
    pairs[0][0].write_bytes(b"")
    with pytest.raises(DataError, match=r"a.png is empty"):
        evaluate(predictor, split_of(*pairs))


def test_a_few_images_spread_over_the_split_are_counted_in_parts(predictor: Predictor, tmp_path: Path) -> None:
    pairs = [write_pair(tmp_path, str(i), [[0]], [[i % 3]]) for i in range(6)]
    dataset = MaskDataset(tmp_path, predictor.card.classes, {"val": split_of(*pairs)})
    evaluator = Evaluator(predictor.card, dataset)
    images = evaluator.sample(3)
    assert images == [0, 2, 4]
    whole = evaluator.count(predictor, images)
    parts = [evaluator.count(predictor, images[i::2]) for i in range(2)]
    assert whole is not None
    assert parts[0] is not None
    assert parts[1] is not None
    parts[0].merge(parts[1])
    assert parts[0].metrics(predictor.card.classes) == whole.metrics(predictor.card.classes)
    # Images 0, 2 and 4 are labelled 0, 2 and 1, and all are predicted as 0.
    assert whole.metrics(predictor.card.classes)["pixel_accuracy"] == pytest.approx(1 / 3)
    assert evaluator.count(predictor, images, stop=lambda: True) is None
