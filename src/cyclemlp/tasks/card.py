"""The model card: everything but the weights that prediction needs, kept next to them as `model.json`.

A run folder, or any folder, with `model.safetensors` and `model.json` is a model: no training code, no recipe
and no pickle is needed to use it.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import numpy.typing as npt

from cyclemlp.data.class_choice import ClassChoice
from cyclemlp.data.datasets import SplitDataset
from cyclemlp.data.ground_resolution import measure_ground
from cyclemlp.data.pixel_measurement import MeasuredPixels, measure_pixels, parse_value_range
from cyclemlp.data.pixel_rule import PixelRule, ValueRule
from cyclemlp.data.resizing import ResizeRule, SquareRule
from cyclemlp.documents import DocumentError, read_json
from cyclemlp.errors import CheckpointError, ConfigError
from cyclemlp.files import JsonMapping, JsonObject, atomic_write, check_digest, sha256_of, write_json
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.tasks.aside import settle
from cyclemlp.tasks.base import Dataset
from cyclemlp.tasks.card_json import from_json, numbers_in, require
from cyclemlp.tasks.options import RunConfig
from cyclemlp.tasks.registry import get_task, task_names
from cyclemlp.tasks.split_of_run import held_out_by, trained_on

if TYPE_CHECKING:  # cards are read where torch is not installed, too
    from torch import nn

WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "model.json"
FORMAT = 1
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MIN_WINDOW = 32  # the stride of a backbone's last stage
MAX_EDGE = 2**16
_LIMITS = {
    "head_width": (8, 2**14, "none for the paper's"),
    "short_side": (1, MAX_EDGE, "none"),
    "long_side": (1, MAX_EDGE, "none"),
    "window": (MIN_WINDOW, MAX_EDGE, "none for whole images"),
    "overlap": (0, MAX_EDGE, "none for the default"),
    "image_size": (1, MAX_EDGE, "none"),
}
"""The smallest and largest value that each of these fields may have, and what None stands for."""
MAX_CHANNELS = 1024
MAX_OPTION = 2**14
"""Of the numbers in `model_options`: a network is built from them before its weights are compared."""
_OF_CONFIG = ("model", "head", "head_width", "input_scale", "window", "short_side", "long_side", "image_size", "resize")
CardValue = str | float | None | Sequence[int] | Sequence[str] | JsonMapping | DetectionHead


@dataclass(frozen=True)
class ModelCard:
    """What a trained network is, and how images have to be prepared for it."""

    task: str
    """What the network does, by the name of the task."""
    model: str
    """Name of the backbone, as timm knows it."""
    head: str
    """Name of the head on the backbone; `linear` for classification."""
    classes: tuple[str, ...]
    """Name of each class, in the order of the network's outputs."""
    head_width: int | None = None
    """Channels of the head; None for the paper's."""
    in_chans: int = 3
    """Channels of an image."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Subtracted from each channel, in units of the full range (0 to 1)."""
    std: tuple[float, ...] = IMAGENET_STD
    """Each channel is divided by it after the subtraction."""
    values: ValueRule = "photo"
    """How stored values become 0 to 255: as photographs, by `value_range`, or by the range of each image."""
    value_range: tuple[float, ...] = ()
    """The values that become 0 and 255: two for all bands, or two for each."""
    bands: tuple[int, ...] = ()
    """Numbers of the bands of a file that are the channels, from 1; none for grey and RGB images."""
    file_bands: int | None = None
    """How many bands a file must have, where `bands` are given."""
    band_names: tuple[str, ...] = ()
    """Names of `bands`, where the training images had them."""
    ground_resolution: tuple[float, ...] = ()
    """Metres per pixel of the training images: mean, smallest and largest; none where they do not say it."""
    input_scale: float = 1.0
    """Factor by which an image is resized before the network; the outputs are resized back."""
    window: int | None = None
    """Edge of the sliding window in pixels of the resized image; None passes images whole."""
    overlap: int | None = None
    """Pixels of the resized image that windows share; None for the task's default."""
    short_side: int | None = None
    """Pixels to which an image's shorter edge is resized, before `input_scale` applies; None keeps it."""
    long_side: int | None = None
    """Maximum pixels of the longer edge after that; larger images are downscaled to it."""
    image_size: int | None = None
    """Edge in pixels of the square images that a classifier sees."""
    crop_pct: float | None = None
    """Share of the resized image's edge that it sees."""
    resize: SquareRule = "crop"
    """How it makes images square: their middle, padded, or squashed; only the first uses `crop_pct`."""
    model_options: JsonObject = field(default_factory=dict)
    """Arguments of the backbone other than the usual ones, such as `stepsize` or `branches`."""
    detection: DetectionHead | None = None
    """Shape, anchors and thresholds of a detector's head."""
    shown_score: float | None = None
    """Score below which objects are neither shown nor counted, chosen on images kept out of training; None for 0.3."""
    val_share: float | None = None
    """Share of the images of its data that the run held out for validation; None where the data has such a split."""
    val_seed: int = 0
    """The seed of that choice."""
    val_limits: dict[str, float] = field(default_factory=dict)
    """The highest hash of an image that was held out, of each class folder or of all: it tells them from others."""
    val_block: float | None = None
    """Edge of the blocks of the ground that it held out, where it was given, in the units of the coordinates."""
    val_margin: float | None = None
    """The margin around them, where it was given."""
    palette: tuple[str, ...] = ()
    """The classes of the masks with their colours, as the file given as --palette has them; none without the option."""
    data_classes: tuple[str, ...] = ()
    """Name of each class of the data, where only some are learnt or several as one; none where all are."""
    used_classes: tuple[str, ...] = ()
    """Those that --classes names."""
    ignored_classes: tuple[str, ...] = ()
    """Those that --ignore-classes names."""
    merged_classes: tuple[str, ...] = ()
    """What --merge makes of them, such as `vehicle=car,truck`."""
    label_field: str = ""
    """The property that names the class of areas on a map, as --label-field has it; none without the option."""
    category_ids: tuple[int, ...] = ()
    """Number of each class in the training annotations, for results in COCO's format; none for 1, 2, ..."""
    metrics: JsonObject = field(default_factory=dict)
    """Scores on the validation split."""
    validation_counts: JsonObject = field(default_factory=dict)
    """Of segmentation: what was predicted there, as far as the errors of areas need it; see `ValidationCounts`."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of cyclemlp, torch and timm that wrote the weights."""
    weights_sha256: str = ""
    """SHA-256 of the weights' file that the card was written for, checked when both are loaded; while new ones replace
    it, theirs too, after a space."""
    licence: str = ""
    """Licence of the weights, where one is known."""
    source: str = ""
    """Where the weights come from: data, run, or a publication."""

    def __post_init__(self) -> None:
        names = task_names()
        require(self.task in names, f"task {self.task!r}: allowed are {', '.join(names)}")
        task, count = get_task(self.task), len(self.classes)
        require(0 < count <= task.max_classes, f"{count} classes: allowed are 1 to {task.max_classes}")
        require(len(set(self.classes)) == count, "classes: two have the same name")
        require(1 <= self.in_chans <= MAX_CHANNELS, f"in_chans {self.in_chans}: allowed are 1 to {MAX_CHANNELS}")
        lengths = (len(self.mean), len(self.std))
        require(lengths == (self.in_chans, self.in_chans), f"mean and std must have in_chans={self.in_chans} numbers")
        numbered = len(set(self.category_ids)) == len(self.category_ids) and len(self.category_ids) in (0, count)
        require(numbered, f"category_ids {self.category_ids}: a different number for each class, or none")
        require(all(isinstance(each, int | float) for each in self.val_limits.values()), "val_limits: numbers alone")
        require(len(self.bands) in (0, self.in_chans), f"bands {self.bands}: one for each of in_chans={self.in_chans}")
        require(all(band >= 1 for band in self.bands), f"bands {self.bands}: numbers from 1 on")
        _check_ranges(self)
        ground = self.ground_resolution
        ordered = not ground or (len(ground) == 3 and 0 < ground[1] <= ground[0] <= ground[2])
        require(ordered, f"ground_resolution {ground}: mean, smallest and largest, above 0, or none")
        require(min(self.std) > 0, f"std {self.std}: must be above 0")
        require(0 < self.input_scale <= 16, f"input_scale {self.input_scale}: must be above 0 and at most 16")
        shown = self.shown_score
        require(shown is None or 0 <= shown <= 1, f"shown_score {shown}: must be from 0 to 1, or none")
        for name, (least, most, without) in _LIMITS.items():
            value = getattr(self, name)
            fits = value is None or least <= value <= most
            require(fits, f"{name} {value}: allowed are {least} to {most}, or {without}")
        too_large = [number for number in numbers_in(self.model_options) if not abs(number) <= MAX_OPTION]
        require(not too_large, f"model_options: {too_large[:1]} is more than {MAX_OPTION}")
        try:
            task.check_card(self)
        except ConfigError as error:
            raise CheckpointError(f"model card: {error}") from error

    @classmethod
    def of_run(cls, task: str, config: RunConfig, dataset: Dataset, **own: CardValue) -> "ModelCard":
        """The card of what a run trains: what its config has under the same names, and fields of the task's `own`."""
        shared: JsonObject = {name: getattr(config, name) for name in _OF_CONFIG if hasattr(config, name)}
        shared |= _of_pixels(measure_pixels(tuple(dataset.splits["train"].images), config.bands, config.value_range))
        if get_task(task).takes_views:
            shared |= _of_ground(config, tuple(dataset.splits["train"].images))
        shared |= held_out_by(config, dataset)
        shared |= _of_choice(config.class_choice, dataset)
        source = trained_on(config.data)
        return cls(**{"task": task, "classes": dataset.classes, "source": source, **shared, **own})

    @property
    def class_choice(self) -> ClassChoice:
        """Which classes of its data it learnt."""
        return ClassChoice(self.used_classes or None, self.ignored_classes or None, self.merged_classes or None)

    @property
    def resize_rule(self) -> ResizeRule:
        """How images are resized before the network."""
        return ResizeRule(self.input_scale, self.short_side, self.long_side)

    @property
    def pixel_rule(self) -> PixelRule:
        """How an image becomes pixels."""
        ranges = tuple(zip(self.value_range[::2], self.value_range[1::2], strict=True))
        return PixelRule(self.values, self.bands, self.file_bands, self.band_names, ranges)

    def with_value_range(self, words: Sequence[str | float] | str | None) -> "ModelCard":
        """The card for images with other values, as --value-range gives them. Raises ConfigError."""
        asked = parse_value_range(words)
        if asked is None:
            return self
        if asked == "per-image":
            return dataclasses.replace(self, values="per-image", value_range=())
        if isinstance(asked, str):
            raise ConfigError(f"--value-range {asked} is for training: give two numbers, such as 0 4095, or per-image")
        if len(asked) not in (2, 2 * len(self.bands)):
            raise ConfigError(f"--value-range has {len(asked)} numbers: give two, or two for each of the model's bands")
        return dataclasses.replace(self, values="fixed", value_range=asked)

    def normalised(self, images: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Images (..., C, H, W) with values from 0 to 255, as the network takes them."""
        mean, std = (np.array(each, dtype=np.float32).reshape(-1, 1, 1) * 255 for each in (self.mean, self.std))
        return (images - mean) / std

    def to_dict(self) -> JsonObject:
        """The card as JSON values, with the version of the format."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        lists = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        head = {"detection": None if self.detection is None else dataclasses.asdict(self.detection)}
        return {"format": FORMAT, **values, **lists, **head}

    @classmethod
    def from_dict(cls, values: JsonMapping) -> "ModelCard":
        """The card of `to_dict`. Raises CheckpointError for another format version, other keys, or a wrong value."""
        given = dict(values)
        form = given.pop("format", None)
        require(form == FORMAT, f"format {form!r}: this version of cyclemlp reads format {FORMAT}; update it")
        if isinstance(given.get("detection"), dict):
            try:
                given["detection"] = from_json(DetectionHead, given["detection"], "detection.")
            except ConfigError as error:
                raise CheckpointError(f"model card: detection: {error}") from error
        return from_json(cls, given)


def _of_choice(choice: ClassChoice, dataset: Dataset) -> JsonObject:
    """What the card says of the classes that were chosen."""
    if not choice:
        return {}
    assert isinstance(dataset, SplitDataset)  # others have no choice
    names = {
        "data_classes": dataset.data_classes,
        "used_classes": choice.classes,
        "ignored_classes": choice.ignore_classes,
        "merged_classes": choice.merge,
    }
    return {name: value or () for name, value in names.items()}


def _of_pixels(measured: MeasuredPixels) -> JsonObject:
    """What the card says of the pixels of a run."""
    rule = measured.rule
    values: JsonObject = {
        "values": rule.values,
        "value_range": tuple(end for pair in rule.ranges for end in pair),
        "bands": rule.bands,
        "file_bands": rule.file_bands,
        "band_names": rule.names,
        "in_chans": rule.channels,
    }
    return values | ({"mean": measured.mean, "std": measured.std} if measured.mean else {})


def _of_ground(config: RunConfig, images: tuple[Path, ...]) -> JsonObject:
    """What the card says of the ground: nothing where images are resized to a size, whatever their resolution."""
    sized = any(getattr(config, name, None) is not None for name in ("short_side", "long_side"))
    return {} if sized else {"ground_resolution": measure_ground(images)}


def _check_ranges(card: "ModelCard") -> None:
    """Raise CheckpointError where the rule of values and its ranges do not fit each other."""
    ranges, rules = card.value_range, get_args(ValueRule)
    require(card.values in rules, f"values {card.values!r}: allowed are {', '.join(rules)}")
    lengths = (2, 2 * card.in_chans) if card.values == "fixed" else (0,)
    require(len(ranges) in lengths, f"value_range {ranges}: {' or '.join(map(str, lengths))} numbers for {card.values}")
    rising = all(low < high for low, high in zip(ranges[::2], ranges[1::2], strict=True))
    require(rising, f"value_range {ranges}: the smaller number of each pair first")


def build_model(card: ModelCard, drop_path_rate: float = 0.0) -> "nn.Module":
    """The network the card describes, with random weights.

    Raises ConfigError where this installation knows no such backbone or head.
    """
    return get_task(card.task).build_model(card, drop_path_rate)


def classifier_card(model: str, image_size: int, classes: int) -> ModelCard:
    """The card of a classifier with numbered classes that sees whole images of one size."""
    names = tuple(map(str, range(classes)))
    return ModelCard("classification", model, "linear", names, image_size=image_size, crop_pct=1.0)


def save_model(folder: Path, model: "nn.Module", card: ModelCard) -> None:
    """Write the weights as safetensors and the card as JSON into `folder`, each whole or not at all.

    Parts that the network names in `training_only` are left out.
    """
    import safetensors.torch

    unwanted = tuple(f"{part}." for part in getattr(model, "training_only", ()))
    kept = {key: value for key, value in model.state_dict().items() if not key.startswith(unwanted)}
    state = {key: value.detach().cpu().contiguous() for key, value in kept.items()}
    # By way of bytes, so that a full disk is the plain OSError the command line knows.
    content = safetensors.torch.save(state, metadata={"format": "pt"})
    if (folder / WEIGHTS_NAME).is_file():  # a process that ends between the two files leaves either network usable
        save_card(folder, card, sha256(content).hexdigest())
    with atomic_write(folder / WEIGHTS_NAME) as part:
        part.write_bytes(content)
    save_card(folder, card)


def save_card(folder: Path, card: ModelCard, *coming: str) -> None:
    """Write the card as JSON into `folder`, with the digest of the weights and the versions of what wrote it.

    `coming` is the digest of weights that are about to replace those that are there; meanwhile the card has both.
    """
    versions = {package: version(package) for package in ("cyclemlp", "torch", "timm")}
    weights = folder / WEIGHTS_NAME
    digests = " ".join([*([sha256_of(weights)] if weights.is_file() else []), *coming])
    write_json(folder / CARD_NAME, dataclasses.replace(card, versions=versions, weights_sha256=digests).to_dict())


def load_model(path: Path) -> "tuple[nn.Module, ModelCard]":
    """The network and card from a run folder or a `model.safetensors` file with `model.json` next to it.

    The network is on the CPU, in evaluation mode. Raises CheckpointError where `path` is no such thing, or
    where weights and card do not fit: keys and shapes are named, and nothing is loaded.
    """
    import torch

    from cyclemlp.models.checkpoints import check_fit, naming, read_state_dict

    weights, card_path = _find(path)
    card = read_card(card_path)
    try:
        with torch.device("meta"):  # whatever sizes the card names, memory is that of the weights' file
            expected = build_model(card).state_dict()
    except ConfigError as error:
        raise CheckpointError(f"{card_path}: {error}") from error
    check_digest(weights, set(card.weights_sha256.split()))
    state = read_state_dict(weights)
    with naming(weights):
        check_fit(state, expected, f"; the network is that of its {CARD_NAME}")
    model = build_model(card)
    model.load_state_dict(state)
    return model.eval(), card


def read_card(path: Path) -> ModelCard:
    """The card in a run folder or in a `model.json`. Raises CheckpointError, naming the file."""
    if path.is_dir():
        path = _find(path)[1]
    try:
        values = read_json(path)
    except DocumentError as error:
        raise CheckpointError(f"{path} is not a readable model card: it {error}; train or copy it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is not a model card: it must hold one JSON object")
    try:
        return ModelCard.from_dict(values)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def card_beside(path: Path) -> ModelCard | None:
    """The card of a run folder or of the weights of one, None for weights without a card. Raises as `read_card`."""
    place = path if path.is_dir() else path.with_name(CARD_NAME)
    return read_card(place) if place.exists() else None


def _find(path: Path) -> tuple[Path, Path]:
    """The files of weights and card of a model."""
    settle(path)
    advice = f"give a folder written by `cyclemlp train`, or its {WEIGHTS_NAME}"
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: {advice}")
    if not path.is_dir() and path.suffix != ".safetensors":
        raise CheckpointError(f"{path} is not a model: {advice}")
    weights = path / WEIGHTS_NAME if path.is_dir() else path
    card = weights.with_name(CARD_NAME)
    if missing := " and no ".join(file.name for file in (weights, card) if not file.is_file()):
        raise CheckpointError(f"{weights.parent} is not a run folder: it has no {missing}; {advice}")
    return weights, card
