"""Cost and accuracy against the size of the test images, as in the paper's Figure 5."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.figures import draw_resolution
from benchmarks.networks import SAMPLE_SECONDS, Group, measure_groups
from benchmarks.records import command_line, heading, summary
from benchmarks.runtimes import check_runtimes
from benchmarks.subjects import Subject
from cyclemlp.cli.bench_output import (
    Json,
    Numbers,
    Out,
    Rounds,
    Threads,
    aligned,
    check_out,
    check_positive,
    deliver,
    milliseconds,
)
from cyclemlp.data.datasets import ClassifiedDataset
from cyclemlp.data.formats.class_folders import read_split
from cyclemlp.errors import ConfigError
from cyclemlp.inference.evaluate import Evaluator
from cyclemlp.inference.predictor import Predictor
from cyclemlp.inference.rounds import DEFAULT_THREADS, Plan
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


def resolution(
    names: tuple[str, ...] = ("cyclemlp_b2",),
    /,
    *,
    run: Path | None = None,
    data: Path | None = None,
    split: str = "val",
    size: Numbers = SIZES,
    runtime: str = "eager",
    rounds: Rounds = 9,
    threads: Threads = DEFAULT_THREADS,
    out: Out = None,
    json: Json = False,
) -> None:
    """Cost of networks against the size of the test images, as in Figure 5; with a run, its accuracy too.

    A figure is written next to `--out`, as .png.

    Parameters
    ----------
    names
        Models, by their timm names; those for one size are measured at 224 alone.
    run
        Run folder of a classifier, whose accuracy is measured at every size; needs --data.
    data
        Class folders with the classes of the run.
    split
        Which part of the data.
    size
        Edges of the square images, in pixels.
    runtime
        eager, compile, onnx (ONNX Runtime) or openvino.
    """
    check_out(out, "resolution.json")
    if (run is None) != (data is None):
        raise ConfigError("--run and --data belong together: give both for accuracies, or none for cost alone")
    check_positive(size=size)
    plan = Plan(rounds, SAMPLE_SECONDS, threads)
    accuracy = accuracies(run, data, split, size) if run is not None and data is not None else None
    record = bench_resolution(names, size, runtime, plan, command_line()) | {"accuracy": accuracy}
    if out is not None:
        draw_resolution(record, out.with_suffix(".png"))
    deliver(record, _table(record), out, json)


def bench_resolution(
    names: Sequence[str], sizes: Sequence[int], runtime: str, plan: Plan, command: str = ""
) -> dict[str, Any]:
    """FLOPs by the paper's rule and latency of each model at each size; the models of a size share their rounds.

    Models for one size are measured at 224, with a note saying so.

    Raises:
        ConfigError: an unknown model or runtime, or a model that takes no image of these sizes.
    """
    check_runtimes([runtime])
    sizes_by_name = {name: sizes_of(name, sizes) for name in names}
    groups = [
        Group(tuple(Subject(name, size) for name in names if size in sizes_by_name[name]), (runtime,))
        for size in sorted({size for each in sizes_by_name.values() for size in each})
    ]
    results = measure_groups(groups, plan)
    points = [entry for result in results for entry in result.entries()]
    curves = [
        {"model": name, "note": note_of(name), "points": [each for each in points if each["model"] == name]}
        for name in names
    ]
    published = {"sizes": list(SIZES), "top1": {name: list(values) for name, values in PUBLISHED.items()}}
    return {
        "bench": "resolution",
        **summary([result.measured for result in results], plan, command),
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
    dataset = ClassifiedDataset(data, card.classes, {split: read_split(data, split, card.classes)})
    points = []
    for size in sizes:
        resized = predictor.described_as(replace(card, image_size=size))
        scores = Evaluator(resized.card, dataset, split).count_all(resized).metrics(card.classes)
        points.append({"size": size, "top1": scores["top1"]})
    return {
        "run": run.name,
        "model": card.model,
        "trained_at": card.image_size,
        "images": len(dataset.splits[split].images),
        "points": points,
    }


def _table(record: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("model", "image", "FLOPs G", "ms")]
    for curve in record["curves"]:
        for point in curve["points"]:
            timing = milliseconds(point["runtimes"][record["runtime"]], 1)
            rows.append((point["model"], str(point["size"]), f"{point['flops'] / 1e9:.2f}", timing))
    notes = [curve["note"] for curve in record["curves"] if curve["note"]]
    lines = [heading(record), "", *aligned(rows), *notes]
    if record["accuracy"] is not None:
        ours = record["accuracy"]
        shown = [(str(each["size"]), f"{100 * each['top1']:.2f}") for each in ours["points"]]
        lines += ["", f"run {ours['run']} on {ours['images']} images", *aligned([("image", "top-1 %"), *shown])]
    return "\n".join(lines) + "\n"
