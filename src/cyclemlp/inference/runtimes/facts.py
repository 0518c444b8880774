"""What an exported file says about itself.

It carries its model card and the sizes it takes as text entries, so that it needs no other file:

    cyclemlp.size_rule     {"least": 32, "multiple": 1}
    cyclemlp.outputs       ["logits"]
    cyclemlp.classes, cyclemlp.mean, ...     the keys of `ModelCard`, each as JSON
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cyclemlp.documents import parse_json
from cyclemlp.errors import CheckpointError
from cyclemlp.heads.detection_options import MASK_RCNN
from cyclemlp.heads.network import Network, SizeRule
from cyclemlp.tasks.card import ModelCard

INPUT_NAME = "images"
PREFIX = "cyclemlp."


@dataclass(frozen=True)
class Facts:
    """The card, the sizes and the outputs of an exported network."""

    card: ModelCard
    size_rule: SizeRule
    outputs: tuple[str, ...]
    """Names of the outputs, in order; the task makes results of them."""

    def to_entries(self) -> dict[str, str]:
        """Entries for the file's metadata, values as JSON."""
        rule = {"least": self.size_rule.least, "multiple": self.size_rule.multiple}
        described = {**_INPUT, "normalisation": f"(value / 255 - mean) / std, {_channels(self.card)}"}
        values = {**self.card.to_dict(), "size_rule": rule, "outputs": list(self.outputs), "input": described}
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
            values = {key: parse_json(text) for key, text in own.items()}
            rule, outputs = SizeRule(**values.pop("size_rule")), tuple(values.pop("outputs"))
            values.pop("input", None)
            return cls(ModelCard.from_dict(values), rule, outputs)
        except (ValueError, TypeError, KeyError, CheckpointError) as error:
            raise CheckpointError(f"{path} has unusable metadata ({error}): export it again") from error


class ExportedNetwork:
    """What the networks of all exported files have: their facts. They are pickled as the path, to be opened again."""

    def __init__(self, path: Path, entries: Mapping[str, str]) -> None:
        """The file `path` with this metadata. Raises CheckpointError."""
        self.facts = Facts.from_entries(entries, path)
        self.size_rule = self.facts.size_rule
        self._path = path.absolute()

    def __reduce__(self) -> tuple[type["ExportedNetwork"], tuple[Path]]:
        return type(self), (self._path,)


def decodes_by_itself(network: Network, card: ModelCard) -> bool:
    """Whether a detector returns boxes, of which it has dropped some, in place of raw outputs."""
    facts = getattr(network, "facts", None)
    return card.head == MASK_RCNN or (isinstance(facts, Facts) and facts.outputs[:1] == ("boxes",))


_INPUT = {
    "name": INPUT_NAME,
    "layout": "NCHW",
    "type": "float32",
}


def _channels(card: ModelCard) -> str:
    """What the channels of the input are, and what their values were made from."""
    if not card.bands:
        channels = "channels in the order red, green, blue"
    else:
        names = f" ({', '.join(card.band_names)})" if card.band_names else ""
        channels = f"channels are the bands {' '.join(map(str, card.bands))}{names} of {card.file_bands}"
    ranges = {"fixed": "; value is 0 to 255 by value_range", "per-image": "; value is 0 to 255 by each image's range"}
    return channels + ranges.get(card.values, "")
