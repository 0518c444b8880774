"""Write the tables of README.md and docs/ from the files in results/, between their markers.

    python scripts/render_results.py            # rewrite
    python scripts/render_results.py --check    # exit status 1 where a page differs from its results

A page marks a place with `<!-- results:NAME -->` and `<!-- /results:NAME -->`; NAME is a file in results/.
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml
from benchmark_tables import (
    bench_active,
    bench_compare,
    bench_heads,
    bench_loader,
    bench_op,
    bench_scale,
    bench_train,
    faults,
    fuzz,
    scene_memory,
    source,
    table,
    window_objects,
    window_statistics,
    windows,
)

from cyclemlp.documents import read_yaml
from cyclemlp.tasks.recipes import FOLDER, packaged
from cyclemlp.tasks.registry import get_task

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_PLACE = re.compile(r"(<!-- results:([\w-]+) -->\n)(.*?)(<!-- /results:\2 -->)", re.DOTALL)


def demo(result: dict[str, Any]) -> str:
    """Held-out IoU of `cyclemlp demo`."""
    metrics, training = result["metrics"], result["training"]
    names = [*metrics["IoU"], "mean"]
    values = [*metrics["IoU"].values(), metrics["mIoU"]]
    rendered = table(["held-out IoU", *names], [["cyclemlp_nano, Semantic FPN", *(f"{value:.3f}" for value in values)]])
    length = f"{training['steps']} steps in {training['seconds'] / 60:.1f} minutes of training"
    return f"{rendered}\n\n{length}. {source(result)}"


def demo_seeds(result: dict[str, Any]) -> str:
    """Held-out IoU of the demo's recipe with several seeds."""
    rows = []
    for run in result["runs"]:
        (session,) = run["sessions"]
        found = [*run["metrics"]["IoU"].values(), run["metrics"]["mIoU"]]
        scores = [f"{value:.3f}" for value in found]
        rows.append([str(session["seed"]), str(run["steps"]), f"{run['seconds'] / 60:.1f} minutes", *scores])
    head = ["seed", "steps", "training", *result["runs"][0]["metrics"]["IoU"], "mean"]
    return f"{table(head, rows)}\n\n{result['note']} {source(result)}"


def demo_objects(result: dict[str, Any]) -> str:
    """Held-out average precision of `cyclemlp demo --task detection` or `instance-segmentation`."""
    metrics, training = result["metrics"], result["training"]
    prefixes = {"mask_": "outlines", "box_": "boxes"} if "mask_mAP" in metrics else {"": "boxes"}
    classes = list(metrics[f"{next(iter(prefixes))}AP"])
    rows = [
        [name, *(f"{metrics[f'{prefix}AP'][each]:.3f}" for each in classes)]
        + [f"{metrics[f'{prefix}{score}']:.3f}" for score in ("mAP", "AP50")]
        for prefix, name in prefixes.items()
    ]
    rendered = table(["held-out AP", *classes, "mean", "AP50"], rows)
    length = f"{training['steps']} steps in {training['seconds'] / 60:.1f} minutes of training from random weights"
    return f"{rendered}\n\n{length}. {source(result)}"


def classification(result: dict[str, Any]) -> str:
    """Top-1 of runs of one length on one data set, and of the baseline."""
    classes = result["classes"]
    rows = [
        [_flagged(run, result["images"]["train"]), f"{run['parameters'] / 1e6:.1f} M", str(run["steps"]),
         *_accuracies(run["metrics"], classes)]
        for run in sorted(result["runs"], key=lambda run: -run["metrics"]["top1"])
    ]  # fmt: skip
    rows.append([result["baseline"]["model"], "", "", *_accuracies(result["baseline"]["metrics"], classes)])
    head = ["model", "parameters", f"steps in {result['runs'][0]['budget']}", "top-1", *classes]
    return f"{table(head, rows)}\n\n{source(result)}"


def runs(result: dict[str, Any]) -> str:
    """Scores of runs of one length on one data set, the targets of the first one, and the commands."""
    names = [*result["targets"], *(name for name in SHOWN[result["task"]] if name not in result["targets"])]
    scores = [get_task(result["task"]).scores.columns(run["metrics"]) for run in result["runs"]]
    if result["task"] in SHOWN_BY_CLASS:
        names += [name for name in scores[0] if "/" in name and name not in names]
    models = [run["model"] for run in result["runs"]]
    repeated = len(set(models)) < len(models)
    rows = [
        [f"{run['model']}, {run['run']}" if repeated else run["model"],
         f"{run['parameters'] / 1e6:.1f} M", f"{run['seconds'] / 60:.0f} min", str(run["images_seen"]),
         *(_score(columns[name]) for name in names)]
        for run, columns in zip(result["runs"], scores, strict=True)
    ]  # fmt: skip
    if views := result.get("views"):
        flipped = ", flipped too" if views["flip"] else ""
        seen = f"the first, seen at {' and '.join(f'{scale:g}' for scale in views['scales'])} times its size{flipped}"
        columns = get_task(result["task"]).scores.columns(views["metrics"])
        rows.append([seen, "", "", "", *(_score(columns[name]) for name in names)])
    head = ["model", "parameters", "training", "images seen", *(name.replace("/", " ") for name in names)]
    met = ", ".join(f"{name.replace('/', ' ')} at least {value:g}" for name, value in result["targets"].items())
    note = f"Target of the first line: {met}. {result['note']}".strip()
    return f"{table(head, rows)}\n\n{note} {source(result)}\n\n{_commands(result)}"


def over_seeds(result: dict[str, Any], scores: dict[str, Sequence[str]] | None = None) -> str:
    """Runs of several seeds, a row for each model, data set and score: the mean, and each run's.

    `scores` are those of a task that are shown; without it the first one.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run in result["runs"]:
        groups.setdefault((run["data"], run["task"], run["model"]), []).append(run)
    rows = []
    for (data, task, model), found in groups.items():
        steps = [run["steps"] for run in found]
        size = f"{found[0]['parameters'] / 1e6:.1f} M"
        for name in scores[task] if scores else SHOWN[task][:1]:
            values = [get_task(task).scores.columns(run["metrics"])[name] or 0.0 for run in found]
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            each_seed = ", ".join(_score(each) for each in values)
            row = [data, model, size, found[0]["budget"], f"{mean(steps):.0f}", name]
            rows.append([*row, f"**{mean(values):.3f}**{spread}", each_seed])
    head = ["data", "model", "parameters", "time in all", "steps, mean", "score", "mean ± deviation", "each seed"]
    return f"{table(head, rows)}\n\n{result['note']} {source(result)}"


def comparison(result: dict[str, Any]) -> str:
    """Networks side by side at the same time in all."""
    return over_seeds(result, COMPARED)


def first_hour(result: dict[str, Any]) -> str:
    """What the defaults come to in a time; the results file has the options that the runs chose by themselves."""
    rows = []
    for run in sorted(result["runs"], key=lambda run: run["task"]):
        scores = get_task(run["task"]).scores.columns(run["metrics"])
        names = [SHOWN[run["task"]][0], *(name for name in scores if name.startswith("IoU/"))]
        shown = ", ".join(f"{name.rpartition('/')[2].replace('_', ' ')} {scores[name]:.2f}" for name in names)
        rows.append(
            [
                f"`cyclemlp train {run['task']} --max-time {run['budget']}`",
                run["data"],
                run["budget"],
                str(run["images_seen"]),
                f"{run['sessions'][-1]['foreign_load']:.1f} cores",
                shown,
            ]
        )
    rendered = table(["command", "data", "time in all", "images seen", "other programs used", "score"], rows)
    return f"{rendered}\n\n{result['note']} {source(result)}"


def head_widths(result: dict[str, Any]) -> str:
    """Runs of the same time that differ in the width of their head."""
    rows = []
    for run in result["runs"]:
        words = run["command"].split()
        width = words[words.index("--head-width") + 1]
        shown = SHOWN[run["task"]][0]
        score = f"{shown} {get_task(run['task']).scores.columns(run['metrics'])[shown]:.3f}"
        rows.append([run["data"], width, run["budget"], str(run["steps"]), score])
    return (
        f"{table(['data', 'width of the head', 'time', 'steps', 'score'], rows)}\n\n{result['note']} {source(result)}"
    )


STARDIST = ("StarDist, published", "its own split of DSB2018, 67 images", {"accuracy": 0.835, "F1": 0.910, "PQ": 0.771})
"""On images of the same kind: examples/2D/2_training of its repository at 650d3a1."""


def object_counts(result: dict[str, Any]) -> str:
    """The scores that count objects, and those of StarDist."""
    names = tuple(STARDIST[2])
    rows = [[STARDIST[0], STARDIST[1], "0.5", *(f"{STARDIST[2][name]:.3f}" for name in names), ""]]
    for run in result["runs"]:
        scores = run["metrics"]["objects"]
        for line in scores["by_IoU"]:
            first = line["IoU"] == scores["by_IoU"][0]["IoU"]
            who = [f"{run['model']}, {run['seconds'] / 60:.0f} min", run["data"]] if first else ["", ""]
            aji = _score(scores["AJI"]) if first else ""
            rows.append([*who, str(line["IoU"]), *(_score(line[name]) for name in names), aji])
    rendered = table(["model", "data", "IoU", "TP / (TP + FP + FN)", "F1", "PQ", "AJI"], rows)
    return f"{rendered}\n\n{result['note']} {source(result)}\n\n{_commands(result)}"


def _commands(result: dict[str, Any]) -> str:
    """The commands of runs that a recipe of the package repeats; the others are left to the results file."""
    found = [command for run in result["runs"] if (command := by_recipe(run["command"], result["task"]))]
    if not found:
        return "\n".join(f"    {with_optimizer(run['command'])}" for run in result["runs"])
    lines = "\n".join(f"    {command}" for command in found)
    others = "\n\nThe commands of the other runs are in the results file." if len(found) < len(result["runs"]) else ""
    return lines + others


def by_recipe(command: str, task: str) -> str | None:
    """The same command with a recipe of the package, where one has the same options but for the model."""
    options = command_options(with_optimizer(command))
    for name in packaged():
        recipe = read_yaml(FOLDER / f"{name}.yaml")
        if recipe.pop("task", None) == task and recipe | {"model": options.get("model")} == options:
            model = "" if recipe["model"] == options["model"] else f" --model {options['model']}"
            return f"cyclemlp train {task} --config {name} --data DATA{model}"
    return None


def with_optimizer(command: str) -> str:
    """The command as it repeats the run today: AdamW was the only optimiser before commands named theirs."""
    return command if " --optimizer " in command else f"{command} --optimizer adamw"


def command_options(command: str) -> dict[str, Any]:
    """Options of a training command by name, as a recipe has them; without --data."""
    options: dict[str, Any] = {}
    for part in command.split(" --")[1:]:
        name, *values = part.split(" ")
        numbers = [yaml.safe_load(value) for value in values]
        options[name] = numbers if len(numbers) > 1 else numbers[0]
    return {name: value for name, value in options.items() if name != "data"}


SHOWN: dict[str, tuple[str, ...]] = {
    "detection": ("AP50", "mAP", "AP75"),
    "instance-segmentation": ("mask_AP50", "mask_mAP", "mask_AP75", "box_AP50", "box_mAP"),
    "segmentation": ("mIoU", "pixel_accuracy"),
    "classification": ("top1",),
}
"""Scores of a task that are shown in addition to the targets."""
COMPARED: dict[str, Sequence[str]] = {
    "detection": ("AP50", "mAP"),
    "instance-segmentation": ("mask_AP50", "mask_mAP"),
    "segmentation": ("mIoU",),
}
"""Scores in the table of networks side by side."""
SHOWN_BY_CLASS = ("detection", "segmentation")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _flagged(run: dict[str, Any], images: int) -> str:
    """The model's name, and where the time was too short for a pass over the training images, that it was."""
    return run["model"] if run["images_seen"] >= images else f"{run['model']} (too little time for one pass)"


def _accuracies(metrics: dict[str, Any], classes: list[str]) -> list[str]:
    return [f"{metrics['top1']:.3f}", *(f"{metrics['accuracy'][name]:.3f}" for name in classes)]


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "demo": demo,
    "first-hour": first_hour,
    "head-widths": head_widths,
    "learned-offsets": over_seeds,
    "comparison": comparison,
    "demo-seeds": demo_seeds,
    "demo-detection": demo_objects,
    "demo-instance-segmentation": demo_objects,
    "bench-op": bench_op,
    "bench-active": bench_active,
    "classification": classification,
    "bench-compare": bench_compare,
    "bench-train": bench_train,
    "bench-heads": bench_heads,
    "windows": windows,
    "window-objects": window_objects,
    "window-statistics": window_statistics,
    "scene-memory": scene_memory,
    "scene-memory-exact": scene_memory,
    "bench-scale": bench_scale,
    "bench-loader": bench_loader,
    "fuzz": fuzz,
    "faults": faults,
    "detection-bccd": runs,
    "instances-dsb2018": runs,
    "segmentation-dsb2018": runs,
    "instances-fluorescence": object_counts,
}


def render(page: str) -> str:
    """The page with every marked place filled from its result file; places without a file stay as they are."""

    def fill(match: re.Match[str]) -> str:
        begin, name, _, end = match.groups()
        path = ROOT / "results" / f"{name}.json"
        if not path.is_file():
            return match[0]
        return f"{begin}\n{TABLES[name](json.loads(path.read_text(encoding='utf-8')))}\n\n{end}"

    return _PLACE.sub(fill, page)


def main() -> int:
    """Rewrite or check the pages; returns the exit status."""
    stale = [page for page in PAGES if render(page.read_text(encoding="utf-8")) != page.read_text(encoding="utf-8")]
    for page in stale:
        if "--check" in sys.argv:
            sys.stderr.write(f"{page.relative_to(ROOT)} differs from results/: run scripts/render_results.py\n")
        else:
            page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
