from collections.abc import Callable
from pathlib import Path

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
                save(root / "images" / split / f"{name}.png", np.full((32, 48, 3), 90, np.uint8))
                mask = np.zeros((32, 48), np.uint8)
                mask[:8] = 1
                mask[-2:] = 255
                save(root / "masks" / split / f"{name}.png", mask)
        if classes is not None:
            (root / "classes.txt").write_text("\n".join(classes), encoding="utf-8")
        return root

    return write


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
