"""A trained network scored on labelled images: what `cyclemlp eval` and `cyclemlp.evaluate` do."""

from dataclasses import asdict
from pathlib import Path

from cyclemlp.errors import ConfigError
from cyclemlp.files import write_json
from cyclemlp.inference.evaluate import Evaluator
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.base import JsonObject, refuse_foreign_options
from cyclemlp.tasks.options import EvaluationOptions

SCORES_NAME = "scores.json"


def check_out(out: Path | None) -> None:
    """Raise ConfigError where the folder for the scores is a file."""
    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file: give a folder")


def evaluate_predictor(
    predictor: Predictor, run: Path, data: Path, split: str, options: EvaluationOptions, out: Path | None = None
) -> JsonObject:
    """The scores of `predictor`, loaded from `run`, on a split of the data set in `data`, as a report of JSON values.

    With `out`, a folder, the report is written there as scores.json, with further files of the task. Raises ConfigError
    for options that do not apply to the task, DataError for data that is not usable.
    """
    task = predictor.task
    refuse_foreign_options(task.name, task.evaluation_options, asdict(options))
    check_out(out)
    predictor = predictor.described_as(task.card_for_evaluation(predictor.card, options))
    predictor = predictor.with_options(options) if task.takes_views else predictor
    card = predictor.card
    dataset = task.find_evaluation_data(data, split, card)
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
        write_json(out / SCORES_NAME, report)
    return report
