"""Cost and accuracy against the size of the test images, as in the paper's Figure 5."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.models import Group, entry, measure_groups, summary
from benchmarks.rounds import Plan
from benchmarks.runtimes import check_runtimes
from benchmarks.subjects import Subject, plain_network
from cyclemlp.data.formats.class_folders import read_split
from cyclemlp.errors import ConfigError
from cyclemlp.inference.evaluate import evaluate_classification
from cyclemlp.inference.predictor import Predictor
from cyclemlp.models.classifiers import is_built_for_one_size

TRAINED_AT = 224
SIZES = tuple(range(128, 449, 32))
"""Edges of the test images in Figure 5."""
PUBLISHED: Mapping[str, tuple[float, ...]] = {
    "DeiT-S": (67.0, 75.6, 78.6, 79.8, 80.2, 80.0, 79.6, 79.0, 78.1, 77.2, 75.8),
    "GFNet-S": (69.9, 75.7, 78.3, 80.1, 80.7, 80.9, 80.6, 80.3, 79.8, 79.3, 78.7),
    "CycleMLP-B2": (73.8, 78.5, 80.5, 81.5, 81.9, 82.1, 82.1, 81.9, 81.6, 81.2, 80.8),
}
"""ImageNet-1K top-1 in percent at `SIZES`, from the markers of the paper's Figure 5: trained at 224, not tuned."""


def bench_resolution(
    names: Sequence[str], sizes: Sequence[int], runtime: str, plan: Plan, command: str = "cyclemlp bench resolution"
) -> dict[str, Any]:
    """FLOPs by the paper's rule and latency of each model at each size; the models of a size share their rounds.

    Models for one size are measured at 224, with a note saying so.

    Raises:
        ConfigError: an unknown model or runtime, or a model that takes no image of these sizes.
    """
    check_runtimes([runtime])
    taken = {name: sizes_of(name, sizes) for name in names}
    groups = [
        Group(tuple(Subject(name, size) for name in names if size in taken[name]), (runtime,))
        for size in sorted({size for each in taken.values() for size in each})
    ]
    for group in groups:
        for subject in group.subjects:
            plain_network(subject)  # refused before anything is measured
    results = measure_groups(groups, plan)
    points = [
        entry(result, subject, [runtime])
        for group, result in zip(groups, results, strict=True)
        for subject in group.subjects
    ]
    curves = [
        {"model": name, "note": note_of(name), "points": [each for each in points if each["model"] == name]}
        for name in names
    ]
    published = {"sizes": list(SIZES), "top1": {name: list(values) for name, values in PUBLISHED.items()}}
    return {
        "bench": "resolution",
        **summary(results, plan, command),
        "runtime": runtime,
        "curves": curves,
        "accuracy": None,
        "published": {"source": "CycleMLP, arXiv 2107.10224, Figure 5", **published},
    }


def sizes_of(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """Those that the model is measured at: all, or the one it is built for."""
    return (TRAINED_AT,) if is_built_for_one_size(name) else tuple(sizes)


def note_of(name: str) -> str | None:
    """Why the model has a single point, if it has."""
    if not is_built_for_one_size(name):
        return None
    return f"{name} is built for one size: its weights of {TRAINED_AT} pixels take no other, so it is a single point"


def accuracies(run: Path, data: Path, split: str, sizes: Sequence[int]) -> dict[str, Any]:
    """Top-1 of a classification run on the images of `data`, seen at each size with the card's crop share.

    Raises:
        ConfigError: the run is no classifier, or its network takes one size only.
        DataError: no such split, or other classes.
    """
    predictor = Predictor.load(run)
    card = predictor.card
    if card.task != "classification":
        raise ConfigError(f"--run {run} is for {card.task}; Figure 5 is about classification: give such a run")
    if is_built_for_one_size(card.model):
        raise ConfigError(
            f"--run {run}: {card.model} takes images of {card.image_size} pixels only; leave --run out, or give a run"
            " of cyclemlp_*"
        )
    chosen = read_split(data, split, card.classes)
    points = []
    for size in sizes:
        resized = predictor.described_as(replace(card, image_size=size))
        scores = evaluate_classification(resized, chosen).metrics(card.classes)
        points.append({"size": size, "top1": scores["top1"]})
    return {
        "run": run.name,
        "model": card.model,
        "trained_at": card.image_size,
        "images": len(chosen.images),
        "points": points,
    }
