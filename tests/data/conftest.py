import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

WriteDataset = Callable[..., Path]


@pytest.fixture
def write_dataset(tmp_path: Path) -> WriteDataset:
    """Writes a sound data set of two training pairs and one validation pair, values 0 and 1, 48x32 pixels."""

    def write(classes: tuple[str, ...] | None = ("ground", "water")) -> Path:
        root = tmp_path / "lakes"
        for split, names in {"train": ("a", "b"), "val": ("c",)}.items():
            for name in names:
                save(root / "images" / split / f"{name}.png", np.full((32, 48, 3), 90 + len(split), np.uint8))
                mask = np.zeros((32, 48), np.uint8)
                mask[:8] = 1
                mask[-2:] = 255
                save(root / "masks" / split / f"{name}.png", mask)
        if classes is not None:
            (root / "classes.txt").write_text("\n".join(classes), encoding="utf-8")
        return root

    return write


COCO_CATEGORIES = [{"id": 7, "name": "boat"}, {"id": 3, "name": "buoy"}]


@pytest.fixture
def write_coco(tmp_path: Path) -> WriteDataset:
    """Writes COCO data with one image per split, 30x20 pixels; the annotations are those of both splits."""

    def write(
        annotations: list[dict[str, Any]],
        *,
        root: Path = tmp_path,
        categories: list[dict[str, Any]] = COCO_CATEGORIES,
        images: list[dict[str, Any]] | None = None,
    ) -> Path:
        listed = images or [{"id": 1, "file_name": "a.png", "width": 30, "height": 20}]
        content = {"images": listed, "annotations": annotations, "categories": categories}
        for split in ("train", "val"):
            save(root / split / "a.png", np.full((20, 30, 3), 120 + len(split), np.uint8))
            (root / f"{split}.json").write_text(json.dumps(content))
        return root

    return write


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
