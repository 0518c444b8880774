"""`cyclemlp bench robustness`: classifiers on corrupted images, by the definition of ImageNet-C."""

import sys
from json import dumps
from pathlib import Path
from typing import Any

from cyclemlp.cli.bench_output import aligned, check_out, command_line


def robustness(
    *runs: Path,
    data: Path,
    split: str = "val",
    relative_to: Path | None = None,
    images: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    json: bool = False,
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
        So many images, spread evenly over the split; by default all.
    seed
        Of the corruptions.
    out
        Also write the JSON to this file, such as results/robustness.json.
    json
        Print one JSON object instead of a table.
    """
    from cyclemlp.files import write_json

    check_out(out, "robustness.json")
    record = _record(runs, data, split, relative_to, images, seed)
    if out is not None:
        write_json(out, record)
    sys.stdout.write(dumps(record) + "\n" if json else _table(record))


def _record(
    runs: tuple[Path, ...], data: Path, split: str, relative_to: Path | None, count: int | None, seed: int
) -> dict[str, Any]:
    from benchmarks.robustness import choose_images, corruption_errors, error_rates, mean_corruption_error
    from cyclemlp.data.formats.registry import find_dataset
    from cyclemlp.data.labels import ClassifiedDataset
    from cyclemlp.errors import ConfigError, DataError
    from cyclemlp.inference.predictor import Predictor
    from cyclemlp.machine import environment

    if not runs:
        raise ConfigError("no model was given: name a run folder written by `cyclemlp train classification`")
    dataset = find_dataset(data, ClassifiedDataset)
    if split not in dataset.splits:
        raise DataError(f"{data} has no split {split!r}; it has {', '.join(dataset.splits)}")
    chosen = choose_images(dataset.splits[split], count)
    reference = relative_to or runs[0]
    rates = {}
    for run in dict.fromkeys((*runs, reference)):
        predictor = Predictor.load(run)
        if predictor.card.classes != dataset.classes:
            raise DataError(f"{run} has other classes than {data}: choose other --data")
        rates[run] = error_rates(predictor, chosen, seed)
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
    return {
        "bench": "robustness",
        "environment": environment(command_line(), 1, []),
        "images": len(chosen),
        "seed": seed,
        "relative_to": str(reference),
        "models": models,
    }


def _table(record: dict[str, Any]) -> str:
    models = record["models"]
    rows = [("mean error over 5 severities", *(each["run"] for each in models))]
    rows += [("as it is", *(f"{each['clean_error']:.3f}" for each in models))]
    for name in models[0]["errors"]:
        rows.append((name, *(f"{sum(each['errors'][name]) / 5:.3f}" for each in models)))
    rows.append(("mCE", *("-" if each["mCE"] is None else f"{each['mCE']:.3f}" for each in models)))
    note = f"{record['images']} images; errors relative to {record['relative_to']} (ImageNet-C: to AlexNet)"
    return "\n".join([note, *aligned(rows)]) + "\n"
