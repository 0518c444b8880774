"""Scores of a network on a labelled split; the same for evaluations in training, the final one and `cyclemlp eval`."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from cyclemlp.data.checks import check_files
from cyclemlp.data.folders import outside_allowed
from cyclemlp.data.ground_resolution import metres_per_pixel
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.sampling import evenly_spaced
from cyclemlp.data.scenes import rule_of_windows, stored_scene
from cyclemlp.errors import ConfigError
from cyclemlp.files import JsonObject, write_json
from cyclemlp.inference.predictor import Predictor
from cyclemlp.inference.scene_maps import SceneMaps
from cyclemlp.progress import progress_bar
from cyclemlp.tasks.base import Counts, Dataset, refuse_foreign_options
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.ground import card_at
from cyclemlp.tasks.options import EvaluationOptions
from cyclemlp.tasks.registry import get_task


class Evaluator:
    """Counts what a network predicts correctly on a split of `dataset`; the task of `card` says how.

    Every image is predicted as `Predictor.predict` does it. No image is ever skipped.
    """

    def __init__(self, card: ModelCard, dataset: Dataset, split: str = "val") -> None:
        self.card = card
        # What of an image is measured depends on the bands in use.
        self.dataset = dataset.by_rule(card.pixel_rule) if isinstance(dataset, MaskDataset) else dataset
        self.split = split
        self._task = get_task(card.task)
        self._images = dataset.splits[split].images
        self.size = len(self._images)

    def count(
        self, predictor: Predictor, images: Sequence[int], *, stop: Callable[[], bool] = bool, progress: bool = False
    ) -> Counts | None:
        """Counts over the images of these numbers.

        Returns None where `stop()` became true before the end. Raises DataError, naming the file, for an image or a
        label that is not usable, ConfigError where torch is needed but not installed.
        """
        try:
            counts = self._task.new_counts(self.card, self.dataset)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"scores are counted by {error.name}, which is not installed: pip install {error.name}"
            ) from error
        for index in progress_bar(images, what="evaluation", unit="images", shown=progress):
            if stop():
                return None
            if self._task.in_windows(self.dataset, self.split, index) and predictor.views.single:
                if not self._count_scene(counts, predictor, index, stop, progress=progress):
                    return None
                continue
            result = predictor.predict(self._images[index], progress=progress)
            self._task.count(counts, self.dataset, self.split, index, result)
        return counts

    def _count_scene(
        self, counts: Counts, predictor: Predictor, index: int, stop: Callable[[], bool], *, progress: bool
    ) -> bool:
        """Count an image that is read in windows, strip by strip; whether it was counted to its end."""
        path = self._images[index]
        with stored_scene(path, rule_of_windows(path, self.card.pixel_rule)) as scene:
            place = scene.place
            metres = metres_per_pixel(place.crs, place.transform, (place.height, place.width))
            maps = SceneMaps(predictor.described_as(card_at(predictor.card, metres, path)), scene)
            for rows, strip in zip(maps.rows, maps.strips(progress=progress), strict=True):
                if stop():
                    return False
                self._task.count_strip(counts, self.dataset, self.split, index, rows, strip)
        return True

    def sample(self, limit: int) -> list[int]:
        """The numbers of at most `limit` images, spread evenly over the split."""
        return evenly_spaced(range(self.size), limit)

    def count_all(self, predictor: Predictor, images: Sequence[int] | None = None) -> Counts:
        """Counts over all images, or those of these numbers, with a progress bar. Raises as `count`."""
        counts = self.count(predictor, range(self.size) if images is None else images, progress=True)
        assert counts is not None  # nothing stops it
        return counts


def check_out(out: Path | None) -> None:
    """Raise ConfigError where the folder for the results is a file."""
    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file: give a folder")


def evaluate_predictor(
    predictor: Predictor,
    run: Path,
    data: Path,
    split: str,
    options: EvaluationOptions,
    out: Path | None = None,
    *,
    allow_outside: bool = False,
) -> JsonObject:
    """The scores of `predictor`, loaded from `run`, on a split of the data set in `data`, as a report of JSON values.

    With `out`, a folder, the report is written there as scores.json, with further files of the task. Raises ConfigError
    for options that do not apply to the task, DataError for data that is not usable.
    """
    task = predictor.task
    refuse_foreign_options(task.name, task.evaluation_options, asdict(options))
    check_out(out)
    predictor = predictor.described_as(task.card_for_evaluation(predictor.card, options))
    predictor = predictor.with_value_range(options.value_range)
    predictor = predictor.with_options(options) if task.takes_views else predictor
    card = predictor.card
    with outside_allowed(allow_outside):
        dataset = task.find_evaluation_data(data, split, card)
    check_files(dataset, (split,))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    counts = Evaluator(card, dataset, split).count_all(predictor)
    report = {
        "task": task.name,
        "data": str(data),
        "split": split,
        "images": len(dataset.splits[split].images),
        **({} if predictor.views.plain else predictor.views.to_dict()),
        **task.describe_scores(counts, card),
        "metrics": counts.metrics(card.classes),
        "model": card.model,
        "run": str(run),
    }
    if out is not None:
        report |= task.write_scores(out, counts, dataset, split)
        write_json(out / "scores.json", report)
    return report
