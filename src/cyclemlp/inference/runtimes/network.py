"""What every kind of model file looks like to the code that uses it: arrays in, arrays out.

An exported file carries its model card and the sizes it takes as text entries, so it needs nothing beside it:

    cyclemlp.size_rule     {"least": 32, "multiple": 1}
    cyclemlp.outputs       ["logits"]
    cyclemlp.classes, cyclemlp.mean, ...     the keys of `ModelCard`, each as JSON
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cyclemlp.data.resampling import FloatArray
from cyclemlp.errors import CheckpointError
from cyclemlp.tasks.card import ModelCard

INPUT_NAME = "images"
PREFIX = "cyclemlp."


@dataclass(frozen=True)
class SizeRule:
    """Heights and widths that a network takes; others are filled up with zeros at the right and the bottom."""

    least: int = 32
    """The smallest edge, in pixels."""
    multiple: int = 1
    """Edges must be multiples of it."""

    def padded(self, edge: int) -> int:
        """The smallest allowed edge that is not below `edge`."""
        return max(self.least, math.ceil(edge / self.multiple) * self.multiple)


class Network(Protocol):
    """A network in whatever runtime."""

    @property
    def size_rule(self) -> SizeRule:
        """The sizes it takes."""
        ...

    def __call__(self, images: FloatArray) -> tuple[FloatArray, ...]:
        """Its raw outputs for normalised images (N, C, H, W) of an allowed size."""
        ...


@dataclass(frozen=True)
class Facts:
    """What an exported file says about itself."""

    card: ModelCard
    size_rule: SizeRule
    outputs: tuple[str, ...]
    """Names of the raw outputs, in order; how they become results is the task's matter."""

    def to_entries(self) -> dict[str, str]:
        """Entries for the file's metadata, values as JSON."""
        rule = {"least": self.size_rule.least, "multiple": self.size_rule.multiple}
        values = {**self.card.to_dict(), "size_rule": rule, "outputs": list(self.outputs), "input": _INPUT}
        return {PREFIX + key: json.dumps(value) for key, value in values.items()}

    @classmethod
    def from_entries(cls, entries: Mapping[str, str], path: Path) -> "Facts":
        """The facts in the metadata of the file `path`, which also holds entries of others.

        Raises CheckpointError, naming the file, where they are missing or damaged.
        """
        own = {key.removeprefix(PREFIX): text for key, text in entries.items() if key.startswith(PREFIX)}
        if not own:
            raise CheckpointError(
                f"{path} says nothing about classes and normalisation: write it with `cyclemlp export`"
            )
        try:
            values = {key: json.loads(text) for key, text in own.items()}
            rule, outputs = SizeRule(**values.pop("size_rule")), tuple(values.pop("outputs"))
            values.pop("input", None)
            return cls(ModelCard.from_dict(values), rule, outputs)
        except (ValueError, TypeError, KeyError, CheckpointError) as error:
            raise CheckpointError(f"{path} has unusable metadata ({error}): export it again") from error


_INPUT = {
    "name": INPUT_NAME,
    "layout": "NCHW",
    "type": "float32",
    "normalisation": "(value / 255 - mean) / std, channels in the order red, green, blue",
}
