"""Robustness to common corruptions, by the definition of ImageNet-C (Hendrycks and Dietterich, ICLR 2019).

Corrupted images are made on the fly from what the classifier would see, its central crop, as ImageNet-C was made from
central crops of 224 pixels: 15 corruptions at severities 1 to 5, by the package `imagecorruptions-imaug`. The
corruption error of a model is, for each corruption, the sum of its error rates over the severities divided by that
of a reference (AlexNet in the publication); the mean over corruptions is mCE. Numbers with another reference or other
images are not comparable, and not with those on the published ImageNet-C archive, which are JPEG files.
"""

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks.records import command_line
from cyclemlp.cli.bench_output import Json, Out, aligned, check_out, deliver
from cyclemlp.data.datasets import ClassifiedDataset, ClassifiedSplit
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.images import read_image
from cyclemlp.data.resizing import fitted
from cyclemlp.errors import ConfigError, DataError, MissingExtraError
from cyclemlp.inference.predictor import Predictor
from cyclemlp.machine import environment
from cyclemlp.tasks.classification.predict import ClassificationResult

SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip

Errors = Mapping[str, Sequence[float]]
"""Error rate by corruption, one for each severity."""


def robustness(
    *runs: Path,
    data: Path,
    split: str = "val",
    relative_to: Path | None = None,
    images: int | None = None,
    seed: int = 0,
    out: Out = None,
    json: Json = False,
) -> None:
    """Error rates under 15 corruptions at 5 severities, made on the fly, and mCE relative to one of the models.

    Parameters
    ----------
    runs
        Run folders, model.safetensors, or exported files of classifiers.
    data
        Class folders that the models have the classes of.
    split
        Which part of the data.
    relative_to
        The model whose errors are 1; by default the first of the runs.
    images
        Number of images, evenly spaced in the split; by default all.
    seed
        Of the corruptions.
    """
    check_out(out, "robustness.json")
    if not runs:
        raise ConfigError("no model was given: name a run folder written by `cyclemlp train classification`")
    reference = relative_to or runs[0]
    rates, count = _rates(dict.fromkeys((*runs, reference)), data, split, images, seed)
    base = rates[reference][1]
    models = [
        {
            "run": str(run),
            "clean_error": clean,
            "errors": errors,
            "CE": corruption_errors(errors, base),
            "mCE": mean_corruption_error(errors, base),
        }
        for run, (clean, errors) in rates.items()
    ]
    record = {
        "bench": "robustness",
        "environment": environment(command_line(), 1, []),
        "images": count,
        "seed": seed,
        "relative_to": str(reference),
        "models": models,
    }
    deliver(record, _table(record), out, json)


def _rates(
    runs: Iterable[Path], data: Path, split: str, images: int | None, seed: int
) -> tuple[dict[Path, tuple[float, dict[str, list[float]]]], int]:
    """What `error_rates` returns for each run, and the number of images."""
    dataset = find_dataset(data, ClassifiedDataset)
    if split not in dataset.splits:
        raise DataError(f"{data} has no split {split!r}; it has {', '.join(dataset.splits)}")
    chosen = choose_images(dataset.splits[split], images)
    rates = {}
    for run in runs:
        predictor = Predictor.load(run)
        if predictor.card.classes != dataset.classes:
            raise DataError(f"{run} has other classes than {data}: choose other --data")
        rates[run] = error_rates(predictor, chosen, seed)
    return rates, len(chosen)


def corrupt(pixels: npt.NDArray[np.uint8], corruption: str, severity: int, seed: int) -> npt.NDArray[np.uint8]:
    """The image (H, W, 3) corrupted; the same for the same seed.

    Raises:
        MissingExtraError: the extra `robustness` is not installed.
    """
    try:
        import imagecorruptions
    except ModuleNotFoundError as error:
        raise MissingExtraError("imagecorruptions-imaug", "robustness") from error
    state = np.random.get_state()  # noqa: NPY002  the package draws from numpy's global generator
    np.random.seed(seed)  # noqa: NPY002
    try:
        out: npt.NDArray[np.uint8] = imagecorruptions.corrupt(pixels, severity=severity, corruption_name=corruption)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return out


def choose_images(split: ClassifiedSplit, count: int | None) -> list[tuple[Path, int]]:
    """Images and labels spread evenly over the split, all of them where `count` is None.

    Raises:
        ConfigError: `count` is below 1.
    """
    pairs = list(zip(split.images, split.labels, strict=True))
    if count is None or count >= len(pairs):
        return pairs
    if count < 1:
        raise ConfigError(f"--images is {count}; it must be 1 or more")
    return [pairs[i * len(pairs) // count] for i in range(count)]


def error_rates(
    predictor: Predictor,
    images: Sequence[tuple[Path, int]],
    seed: int = 0,
    corruptions: Sequence[str] = CORRUPTIONS,
) -> tuple[float, dict[str, list[float]]]:
    """Error rates in [0, 1]: of the images as they are, and by corruption for each severity.

    Args:
        predictor: of a classifier.
        images: paths and class numbers.
        seed: of everything random; an image is corrupted alike for every model with crops of its size.
        corruptions: all 15 by default, as the definition of mCE needs.

    Raises:
        ConfigError: no classifier.
        DataError: an unreadable image.
        MissingExtraError: the extra `robustness` is not installed.
    """
    card = predictor.card
    size, crop_pct = card.image_size, card.crop_pct
    if card.task != "classification" or size is None or crop_pct is None:
        raise ConfigError(f"the model is for {predictor.card.task}: robustness is measured on classifiers")
    whole = predictor.described_as(replace(predictor.card, crop_pct=1.0))  # what it gets is cropped already
    clean = 0
    wrong = np.zeros((len(corruptions), len(SEVERITIES)), dtype=np.int64)
    for path, label in tqdm(images, unit="img", desc="corrupt", file=sys.stderr, disable=None, leave=False):
        seen = fitted(read_image(path), size, card.resize, crop_pct, card.mean)
        clean += _is_wrong(whole, seen, label)
        for row, name in enumerate(corruptions):
            for column, severity in enumerate(SEVERITIES):
                corrupted = corrupt(seen, name, severity, _seed(seed, path, name, severity))
                wrong[row, column] += _is_wrong(whole, corrupted, label)
    rates = (wrong / len(images)).tolist()
    return clean / len(images), dict(zip(corruptions, rates, strict=True))


def corruption_errors(errors: Errors, reference: Errors) -> dict[str, float | None]:
    """CE by corruption: summed error rates over those of the reference; None where the reference makes no error."""
    sums = {name: (sum(rates), sum(reference[name])) for name, rates in errors.items()}
    return {name: ours / theirs if theirs else None for name, (ours, theirs) in sums.items()}


def mean_corruption_error(errors: Errors, reference: Errors) -> float | None:
    """mCE, the mean of `corruption_errors`; None where one of them is undefined."""
    values = list(corruption_errors(errors, reference).values())
    return None if None in values else sum(value for value in values if value is not None) / len(values)


def _is_wrong(predictor: Predictor, seen: npt.NDArray[np.uint8], label: int) -> bool:
    result = predictor.predict(seen)
    assert isinstance(result, ClassificationResult)
    return int(result.probabilities.argmax()) != label


def _seed(seed: int, path: Path, corruption: str, severity: int) -> int:
    text = f"{seed}/{path.parent.name}/{path.name}/{corruption}/{severity}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())


def _table(record: dict[str, Any]) -> str:
    models = record["models"]
    rows = [("mean error over 5 severities", *(each["run"] for each in models))]
    rows += [("as it is", *(f"{each['clean_error']:.3f}" for each in models))]
    for name in models[0]["errors"]:
        rows.append((name, *(f"{sum(each['errors'][name]) / 5:.3f}" for each in models)))
    rows.append(("mCE", *("-" if each["mCE"] is None else f"{each['mCE']:.3f}" for each in models)))
    note = f"{record['images']} images; errors relative to {record['relative_to']} (ImageNet-C: to AlexNet)"
    return "\n".join([note, *aligned(rows)]) + "\n"
