"""Images and, under the same names, grey images of the values of their pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cyclemlp.data.images import list_images
from cyclemlp.data.stored_masks import read_mask
from cyclemlp.errors import DataError
from cyclemlp.tasks.looks import FloatArray


@dataclass(frozen=True)
class ValueSplit:
    """Images and the files of their values."""

    images: tuple[Path, ...]
    files: tuple[Path, ...]

    def target(self, index: int) -> FloatArray:
        """(H, W) values from 0 to 1."""
        return (read_mask(self.files[index]) / 255).astype(np.float32)


@dataclass(frozen=True)
class ValueDataset:
    """A folder with images/{train,val} and values/{train,val}."""

    root: Path
    classes: tuple[str, ...] = ("value",)

    @cached_property
    def splits(self) -> Mapping[str, ValueSplit]:
        """Those that the folder has. Raises DataError where an image has no values."""
        return {folder.name: self._split(folder) for folder in sorted((self.root / "images").glob("*/"))}

    def _split(self, folder: Path) -> ValueSplit:
        images = tuple(list_images(folder))
        files = tuple(self.root / "values" / folder.name / f"{image.stem}.png" for image in images)
        for image, file in zip(images, files, strict=True):
            if not file.is_file():
                raise DataError(f"{image} has no values: write them to {file}")
        return ValueSplit(images, files)


def find_values(root: Path, *needed: str) -> ValueDataset:
    """The data set in a folder, which has these splits. Raises DataError."""
    dataset = ValueDataset(root)
    for split in needed:
        if split not in dataset.splits:
            raise DataError(f"{root} has no images/{split}: give a folder with images and values")
    return dataset
