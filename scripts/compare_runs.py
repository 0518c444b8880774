"""Finished runs side by side, with their curves, as one result file: of one task on one data set, or of several.

    python scripts/compare_runs.py RUN... --target NAME VALUE --out results/detection-bccd.json

A target is a score that the first run was to reach, named as the columns of metrics.csv: `--target AP50 0.78`, or that
of a class, `--target IoU/water 0.85`. With `--keep` runs of an earlier result that are not named again stay in it:

    python scripts/compare_runs.py RUN --keep results/first-hour.json --out results/first-hour.json
"""

import argparse
import csv
import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from cyclemlp.files import atomic_write, write_json
from cyclemlp.tasks.card import load_model
from cyclemlp.tasks.registry import get_task
from cyclemlp.training.run_record import read_record, training_command, training_sessions

NOT_SHOWN = ("data", "model", "out", "resume", "image-size")
"""Options left out of the command of a run: named otherwise, or chosen by the run itself."""
CHOSEN = ("detections",)
"""Options that a run fills in from the labels."""
RECORDED = (
    "date", "commit", "dirty", "processor", "cores", "memory_gb", "system", "threads", "versions", "seed", "data",
    "from_step", "step", "seconds", "load_average", "foreign_load",
)  # fmt: skip
"""What a result tells of each start of a run; commands and arguments name folders."""


def main() -> None:
    """Compare the runs named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of `cyclemlp train`")
    parser.add_argument("--target", nargs=2, action="append", default=[], metavar=("SCORE", "VALUE"))
    parser.add_argument("--note", help="what a reader must know about the runs; by default that of --keep")
    parser.add_argument("--keep", type=Path, help="an earlier result; runs of the same name are replaced")
    parser.add_argument(
        "--views", type=Path, help="what `cyclemlp eval RUN --scales ... --flip --json` printed of the first run"
    )
    parser.add_argument("--plot", type=Path, help="draw the course of the target scores, as .svg or .png")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    options = parser.parse_args()
    runs = [describe(run) for run in options.runs]
    command = ["python", "scripts/compare_runs.py", *(run.name for run in options.runs)]
    note = options.note or ""
    if options.keep is not None:
        earlier = json.loads(options.keep.read_text(encoding="utf-8"))
        runs = joined(earlier["runs"], runs)
        command += ["--keep", f"results/{options.keep.name}"]
        note = earlier["note"] if options.note is None else note
    tasks = {run["task"] for run in runs}
    if len(tasks) > 1 and (options.target or options.views or options.plot):
        parser.error("the runs have different tasks: leave out --target, --views and --plot")
    record = {
        "task": tasks.pop() if len(tasks) == 1 else "several",
        "data": runs[0]["data"],
        "targets": {name: float(value) for name, value in options.target},
        "note": note,
        "runs": runs,
        **({} if options.views is None else {"views": views(options.views)}),
        "environment": environment_of(shlex.join(command), runs),
    }
    write_json(options.out, record)
    if options.plot is not None:
        draw(record, list(record["targets"]) or [get_task(record["task"]).scores.main], options.plot)
    sys.stdout.write(f"{options.out}\n")


def describe(run: Path) -> dict[str, Any]:
    """Model, size, length, command, scores and curve of a finished run."""
    model, card = load_model(run)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    return {
        "task": card.task,
        "data": card.source.rpartition(" ")[2],
        "run": run.name,
        "model": card.model,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "budget": config["max-time"],
        "steps": max(int(line["step"]) for line in lines),
        "images_seen": max(int(line["step"]) for line in lines) * config["batch-size"],
        "seconds": max(float(line["seconds"] or 0) for line in lines),
        "command": command_of(card.task, card.model, config),
        "versions": card.versions,
        "sessions": sessions(run),
        "metrics": card.metrics,
        "curve": _curve(lines, get_task(card.task).scores.columns(card.metrics)),
    }


def joined(earlier: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The earlier runs in their order, those of the same name replaced, and then the others."""
    new = {run["run"]: run for run in runs}
    return [new.pop(run["run"], run) for run in earlier] + list(new.values())


def views(path: Path) -> dict[str, Any]:
    """How images were seen and what came of it, without where they lie."""
    report = json.loads(path.read_text(encoding="utf-8"))
    return {name: report[name] for name in ("images", "scales", "flip", "metrics")}


def labels(runs: Sequence[dict[str, Any]]) -> list[str]:
    """The models' names, or the runs' where models repeat."""
    models = [run["model"] for run in runs]
    return models if len(set(models)) == len(models) else [run["run"] for run in runs]


def command_of(task: str, model: str, config: dict[str, Any]) -> str:
    """The run's command, from the options that are not the defaults, and with its optimiser in any case."""
    shown = training_command(get_task(task), config, (*NOT_SHOWN, *CHOSEN, "optimizer"))
    start = f"cyclemlp train {task}"
    optimizer = config.get("optimizer", "adamw")  # the only one, before runs named theirs
    return f"{start} --data DATA --model {model}{shown.removeprefix(start)} --optimizer {optimizer}"


def sessions(run: Path) -> list[dict[str, Any]]:
    """Each time that a run was trained, as recorded then, without where files lie. Exits where nothing was recorded."""
    record = read_record(run)
    if record is None:
        raise SystemExit(f"{run} has no run.json, because an earlier version trained it: train it again")
    return [{name: value for name, value in each.items() if name in RECORDED} for each in training_sessions(record)]


def environment_of(command: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Where the runs were trained: of each fact one value if they agree, or all that occur, in their order."""
    every = [session for run in runs for session in run["sessions"]]
    found: dict[str, Any] = {"command": command, "date": max(session["date"] for session in every)}
    for name in ("commit", "dirty", "processor", "cores", "system", "threads", "versions"):
        values = [session[name] for session in every]
        different = [value for i, value in enumerate(values) if value not in values[:i]]
        found[name] = different[0] if len(different) == 1 else different
    return found


def _curve(lines: Sequence[dict[str, str]], scores: Iterable[str]) -> dict[str, list[Any]]:
    """Loss and scores by step: a column each, None where a step has no such value; lines of scores have no time."""
    columns = ["step", "seconds", "loss", *(name for name in scores if name in lines[0])]
    return {name: [_number(line[name]) for line in lines] for name in columns}


def draw(record: dict[str, Any], scores: Sequence[str], path: Path) -> None:
    """The course of some scores over the minutes of training, a line for each run and score."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for number, (run, label) in enumerate(zip(record["runs"], labels(record["runs"]), strict=True)):
        for style, score in zip(("-", "--", ":"), scores, strict=False):
            points = _course(run["curve"], score)
            axes.plot(*zip(*points, strict=True), style, marker="o", color=f"C{number}", label=f"{label}, {score}")
    for name, value in record["targets"].items():
        if name in scores:
            axes.axhline(value, color="grey", linewidth=0.8)
    axes.set(xlabel="minutes of training", ylabel="on the validation images", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    with atomic_write(path) as part:
        figure.savefig(part, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else None)


def _course(curve: dict[str, list[Any]], score: str) -> list[tuple[float, float]]:
    """(minutes, score) of each evaluation; its time is that of the step before it."""
    points, seconds = [], 0.0
    for now, value in zip(curve["seconds"], curve[score], strict=True):
        seconds = now or seconds
        if value is not None:
            points.append((seconds / 60, value))
    return points


def _number(text: str) -> float | None:
    return float(f"{float(text):.5g}") if text else None


if __name__ == "__main__":
    main()
