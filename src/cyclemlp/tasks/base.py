"""What a task is: all that the rest of the package has to know about segmentation, detection and the others.

A task is a class derived from `Task`, in a folder of its own, and one line in `cyclemlp.tasks.registry`. Its module
imports torch only inside the methods that need it, so that `--help` and exported files do without.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from cyclemlp.data.chosen_classes import learnt_classes, with_classes
from cyclemlp.data.folders import name_key
from cyclemlp.data.palettes import from_texts
from cyclemlp.data.problems import DataRequest, listed_classes
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.files import JsonMapping, JsonObject, write_png
from cyclemlp.tasks.looks import FloatArray, NetworkImage, Pixels
from cyclemlp.tasks.options import EvaluationOptions, PredictionOptions, RunConfig
from cyclemlp.tasks.score_text import MAX_CLASSES_LISTED, ScoreTable, further_lines, score_lines
from cyclemlp.tasks.split_of_run import find_split, hold_out_of_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from torch import Tensor, nn

    from cyclemlp.data.images import ImageInput
    from cyclemlp.tasks.card import ModelCard
    from cyclemlp.tasks.loss import TaskLoss
    from cyclemlp.tasks.registry import Prediction
    from cyclemlp.tasks.sample_demo import SampleDemo
    from cyclemlp.tasks.scenes import SceneOutput

Predict = Callable[["ImageInput"], "Prediction"]
"""The prediction for one image, as `Predictor.predict` returns it."""
ParameterGroups = list[JsonObject]
Targets = Any
"""What a loss compares the network's outputs with, in the task's own form."""
Sample = tuple["Tensor", Targets]
Batch = tuple["Tensor", Targets]
Collate = Callable[[list[Sample]], Batch]
"""From samples to a batch: images (B, C, H, W), and targets in the task's own form."""
DEVELOPMENT = "train (development)"
"""The split of the training images that are kept out of training, to choose a threshold on."""


@dataclass(frozen=True)
class ScoreNames:
    """Keys in a task's metrics; all scores lie in [0, 1], or are None where nothing was counted."""

    main: str
    """The score that decides which network is better."""
    per_class: str
    """Key of a dict with a score for each class."""
    further: tuple[str, ...]
    """Keys of all other scores."""
    sentences: Mapping[str, str] = field(default_factory=dict)
    """For the report: a score's key to a sentence with a `{:.2f}` for its value in percent."""
    optional: frozenset[str] = frozenset()
    """Scores that are left out of the summary where they are None."""

    def columns(self, metrics: JsonMapping) -> dict[str, float | None]:
        """Metrics as columns of metrics.csv: `IoU/water` for the class water."""
        single = {name: metrics[name] for name in (self.main, *self.further)}
        per_class = metrics[self.per_class]
        if len(per_class) > MAX_CLASSES_LISTED:
            return single
        return single | {f"{self.per_class}/{name}": value for name, value in per_class.items()}

    def column_names(self, classes: Sequence[str]) -> list[str]:
        """The names of these columns."""
        empty = dict.fromkeys((self.main, *self.further)) | {self.per_class: dict.fromkeys(classes)}
        return list(self.columns(empty))


class Samples(Sized, Protocol):
    """What the loader draws from: indexable, with a length; randomness comes from torch's global generator."""

    def __getitem__(self, index: int, /) -> "Sample": ...


class Split(Protocol):
    """A part of a data set, such as `val`."""

    @property
    def images(self) -> Sequence[Path]:
        """The image files."""


class Dataset(Protocol):
    """A labelled data set, recognised and parsed."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class."""

    @property
    def splits(self) -> Mapping[str, Split]:
        """The splits by name; a run needs `train` and `val`."""


class Counts(Protocol):
    """Sums from which the scores follow; those of several processes add up."""

    def merge(self, other: Self, /) -> None:
        """Add the counts of `other`, as if its images had been counted here."""

    def metrics(self, classes: Sequence[str], /) -> JsonMapping:
        """The scores under the names of the task's `ScoreNames`."""


class Result(Protocol):
    """A prediction for one image."""

    @property
    def image(self) -> Pixels:
        """The image (H, W, C)."""

    def draw(self) -> "Image":
        """The image with the prediction drawn in."""

    def to_dict(self) -> JsonObject:
        """The prediction as JSON values."""


@dataclass(frozen=True)
class TrainingParts:
    """What a task contributes to a training run; the loop is the same for all tasks."""

    card: "ModelCard"
    """The network as it will be saved."""
    model: "nn.Module"
    loss: "TaskLoss"
    samples: Samples
    groups: "Callable[[nn.Module], ParameterGroups]"
    """Makes the optimiser's parameter groups."""
    collate: Collate
    """From a list of samples to a batch of images and targets."""
    eval_mode_modules: "Sequence[nn.Module]" = ()
    """Parts of the network that stay in evaluation mode during training."""
    repeats: int = 1
    """How often a pass over the data takes each sample, under different augmentation; it then meets fewer samples."""
    aspect_groups: Sequence[int] | None = None
    """A group number for each sample; batches are made of samples of one group where possible."""


ConfigT = TypeVar("ConfigT", bound=RunConfig)
DatasetT = TypeVar("DatasetT", bound=Dataset)
ResultT = TypeVar("ResultT", bound=Result)
CountsT = TypeVar("CountsT", bound=Counts)


_OF_VIEWS = frozenset({"scales", "flip", "window", "overlap", "ground_resolution"})


class Task(ABC, Generic[ConfigT, DatasetT, ResultT, CountsT]):
    """A kind of prediction that networks are trained for."""

    name: str
    """As the command line and model cards have it."""
    purpose: str
    """What a trained network does, for --help: "Train a network that ..."."""
    config: type[ConfigT]
    """The options of a run."""
    scores: ScoreNames
    max_classes: int = 10_000
    takes_views: bool = True
    """Whether results are about places in the image, so that several scales, flips and windows make sense."""
    combines_views: str = "averaged over"
    """How the predictions of several views become one, before "scales 1 1.5"."""
    evaluation_options: frozenset[str] = _OF_VIEWS
    """Fields of `EvaluationOptions` that apply."""
    prediction_options: frozenset[str] = _OF_VIEWS
    """Fields of `PredictionOptions` that apply."""
    report_examples: int = 4
    """Validation images shown in the report."""
    report_files: tuple[str, ...] = ()
    """Names of the files that `report_figures` writes."""
    dataset_type: type[DatasetT] | None = None
    """What annotation formats are read into for this task; None for a task that has formats of its own."""
    scenes: "SceneOutput | None" = None
    """What is made of a raster that lies somewhere on the Earth; None where it is predicted as any image."""
    demo: "SampleDemo | None" = None
    """How `cyclemlp demo` shows this task."""

    # The data and the network.

    @abstractmethod
    def find_dataset(self, folder: Path) -> DatasetT:
        """The data set for training in `folder`. Raises DataError."""

    def find_training_data(self, config: ConfigT) -> DatasetT:
        """The data set that a run trains on. Raises DataError, and ConfigError for a choice of classes."""
        dataset = self.find_requested(config.data, DataRequest(hold_out=config.hold_out))
        return learnt_classes(dataset, config.class_choice)

    def find_requested(self, folder: Path, request: DataRequest) -> DatasetT:
        """The data set for what is requested of it; by default all that training needs. Raises DataError."""
        if request.hold_out is not None:
            raise ConfigError(f"--val-share is not for data of {self.name}: leave it out")
        return self.find_dataset(folder)

    def find_evaluation_data(self, folder: Path, split: str, card: "ModelCard") -> DatasetT:
        """A data set that has `split`, for evaluating the network of `card`.

        Raises DataError, also where its classes are not the network's.
        """
        how, palette = hold_out_of_run(card, folder, split), from_texts(card.palette)
        names = card.data_classes or card.classes
        request = DataRequest(split, names, how, palette, card.label_field or None)
        dataset = find_split(self.find_requested, folder, request, card)
        if card.class_choice and not _same_names(dataset.classes, card.classes):  # as --prepare may have written them
            self._check_fits(dataset, folder, names)
            dataset = with_classes(self.with_names(dataset, names), card.class_choice)
        self._check_fits(dataset, folder, card.classes)
        return dataset

    def _check_fits(self, dataset: DatasetT, folder: Path, classes: Sequence[str]) -> None:
        if not self.fits(dataset, classes):
            theirs, ours = listed_classes(dataset.classes), listed_classes(classes)
            raise DataError(f"{folder} has {theirs}, but the model was trained on {ours}: choose other --data")

    def with_names(self, dataset: DatasetT, names: tuple[str, ...]) -> DatasetT:
        """A data set that fits these names, with them."""
        return dataset

    def fits(self, dataset: DatasetT, classes: Sequence[str]) -> bool:
        """Whether the classes of a data set are those of a network."""
        return _same_names(dataset.classes, classes)

    @abstractmethod
    def build_model(self, card: "ModelCard", drop_path_rate: float = 0.0) -> "nn.Module":
        """The network with random weights. Raises ConfigError for an unknown backbone or head."""

    def check_card(self, card: "ModelCard") -> None:
        """Raise ConfigError where the card lacks what this task needs."""

    # Training.

    def resolve(self, config: ConfigT, dataset: DatasetT) -> ConfigT:
        """The config with every option chosen that depends on the data. Raises DataError and ConfigError."""
        return config

    def with_development(self, config: ConfigT, dataset: DatasetT) -> DatasetT:
        """The data set with the split `DEVELOPMENT`, taken from the training images, where the task needs one."""
        return dataset

    def card_after_development(self, card: "ModelCard", counts: CountsT) -> "ModelCard":
        """The card with what is chosen from the counts of a trained network on the split `DEVELOPMENT`."""
        return card

    @abstractmethod
    def training_parts(self, config: ConfigT, dataset: DatasetT) -> TrainingParts:
        """Network, loss, samples and parameter groups of a run whose config is resolved."""

    # Scoring.

    @abstractmethod
    def new_counts(self, card: "ModelCard", dataset: DatasetT) -> CountsT:
        """Counts of no image yet."""

    @abstractmethod
    def count(self, counts: CountsT, dataset: DatasetT, split: str, index: int, result: ResultT) -> None:
        """Add the prediction for image `index` of a split. Raises DataError for labels that are not usable."""

    def in_windows(self, dataset: DatasetT, split: str, index: int) -> bool:
        """Whether an image is read in windows, so that its maps are counted by `count_strip`."""
        return False

    def count_strip(
        self, counts: CountsT, dataset: DatasetT, split: str, index: int, rows: slice, maps: FloatArray
    ) -> None:
        """Add the maps (1, K, rows, W) of some rows of an image that is read in windows. Raises as `count`."""
        raise NotImplementedError(f"images are not read in windows for {self.name}")

    def constant_score(self, counts: CountsT) -> float | None:
        """The main score of the best answer that is the same for every image; None where there is none to compare."""
        return None

    def card_for_evaluation(self, card: "ModelCard", options: EvaluationOptions) -> "ModelCard":
        """The card with this task's own evaluation options applied. Raises ConfigError."""
        return card

    def card_after_validation(self, card: "ModelCard", counts: CountsT) -> "ModelCard":
        """The card with what predictions need to know of the counts on all validation images."""
        return card

    def describe_scores(self, counts: CountsT, card: "ModelCard") -> JsonObject:
        """What a report says in addition to `metrics`."""
        return {}

    def write_scores(self, out: Path, counts: CountsT, dataset: DatasetT, split: str) -> dict[str, str]:
        """Write what `cyclemlp eval --out` shows in addition to scores.json: kinds of file to their paths."""
        return {}

    def score_table(self, report: JsonMapping) -> list[str]:
        """The scores as lines of text, from the report of an evaluation."""
        names, metrics = self.scores, report["metrics"]
        rows = [*metrics[names.per_class].items(), *((name, metrics[name]) for name in (names.main, *names.further))]
        return [*score_lines(rows, names.per_class), *further_lines(self.score_tables(metrics))]

    def score_tables(self, metrics: JsonMapping) -> list[ScoreTable]:
        """Further scores that the report shows, and `cyclemlp eval` after its own."""
        return []

    @abstractmethod
    def draw_example(self, dataset: DatasetT, split: str, index: int, result: ResultT) -> "tuple[str, Image]":
        """For the report: a title, and the prediction for an image next to its labels."""

    def draw_part(
        self, dataset: DatasetT, split: str, index: int, predict: "Callable[[Pixels], Prediction]"
    ) -> "tuple[str, Image]":
        """As `draw_example`, of a part of an image that is read in windows; `predict` takes its pixels."""
        raise NotImplementedError(f"images are not read in windows for {self.name}")

    def report_tables(self, images: Sequence[Path], counts: CountsT, classes: Sequence[str]) -> list[ScoreTable]:
        """Further tables for the report, of the validation images."""
        return []

    def report_figures(self, run_dir: Path, counts: CountsT, classes: tuple[str, ...]) -> "list[tuple[str, Figure]]":
        """Further titled figures for the report; their values may be written to `run_dir` as well."""
        return []

    # Prediction.

    @abstractmethod
    def predict(self, image: NetworkImage) -> ResultT:
        """From the network's outputs to a result; numpy alone."""

    def card_for_prediction(self, card: "ModelCard", options: PredictionOptions) -> "ModelCard":
        """The card with this task's own prediction options applied. Raises ConfigError."""
        return card

    drawing: tuple[str, str] = ("overlay", "_overlay.png")
    """Kind of file and suffix of the drawing of each image."""
    writes_coco: bool = False
    """Whether `describe` has entries in COCO's results format, under `coco`."""

    def image_files(self, options: PredictionOptions) -> Mapping[str, str]:
        """Kind of file to the suffix of its name: `{"mask": "_mask.png"}` makes NAME_mask.png for each image."""
        return {} if options.no_pictures else dict([self.drawing])

    def describe(self, result: ResultT) -> JsonObject:
        """What the JSON says about an image or a video frame; its `size` is among it."""
        return {key: value for key, value in result.to_dict().items() if key != "task"}

    def describe_objects(self, result: ResultT) -> JsonObject:
        """What `--objects` adds to the description of an image."""
        return {}

    def draw(self, result: ResultT, options: PredictionOptions) -> "Image":
        """The drawing of an image or of a video frame."""
        return result.draw()

    def write(self, result: ResultT, files: Mapping[str, Path], options: PredictionOptions) -> None:
        """Write the files of an image."""
        if self.drawing[0] in files:
            write_png(files[self.drawing[0]], self.draw(result, options))

    @abstractmethod
    def columns(self, classes: Sequence[str]) -> Sequence[str]:
        """Names of the columns in the table of a video, after the frame's number and time."""

    @abstractmethod
    def rows(self, entry: JsonMapping) -> Sequence[Sequence[object]]:
        """The rows of a frame in that table."""

    @abstractmethod
    def summary(self, entry: JsonMapping) -> str:
        """What was predicted for an image, in a few words, from its entry in the JSON."""

    def finish(self, out: Path, entries: Sequence[JsonMapping]) -> dict[str, str]:
        """Write files about all images together: kinds of file to their paths."""
        return {}


def _same_names(some: Sequence[str], others: Sequence[str]) -> bool:
    return list(map(name_key, some)) == list(map(name_key, others))


_FOR_ALL = frozenset({"value_range"})


def refuse_foreign_options(task: str, allowed: frozenset[str], given: Mapping[str, object]) -> None:
    """Raise ConfigError for an option that was given but does not apply to this task."""
    for name, value in given.items():
        if name not in allowed | _FOR_ALL and value not in (None, False):
            raise ConfigError(f"--{name.replace('_', '-')} is not for {task} models: leave it out")
