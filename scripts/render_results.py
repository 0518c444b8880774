"""Write the tables of README.md and docs/ from the files in results/, between their markers.

    python scripts/render_results.py            # rewrite
    python scripts/render_results.py --check    # exit status 1 where a page differs from its results

A page marks a place with `<!-- results:NAME -->` and `<!-- /results:NAME -->`; NAME is a file in results/.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

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
    table = _table(["held-out IoU", *names], [["cyclemlp_nano, Semantic FPN", *(f"{value:.3f}" for value in values)]])
    return (
        f"{table}\n\n{training['steps']} steps in {training['seconds'] / 60:.1f} minutes of training. {source(result)}"
    )


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
    table = _table(["held-out AP", *classes, "mean", "AP50"], rows)
    length = f"{training['steps']} steps in {training['seconds'] / 60:.1f} minutes of training from random weights"
    return f"{table}\n\n{length}. {source(result)}"


def bench_op(result: dict[str, Any]) -> str:
    """CycleFC against the authors' deformable convolution and a plain linear layer, forward."""
    rows = []
    for case in result["cases"]:
        if case["pass"] != "forward":
            continue
        medians = [f"{1e3 * operator['median_s']:.2f}" for operator in case["operators"].values()]
        ratios = [case["times_faster_than_deform_conv2d"], case["time_over_linear"]]
        rows.append(["x".join(map(str, case["shape_nhwc"])), *medians, *(f"{r:.1f}" if r else "-" for r in ratios)])
    head = ["input (NHWC)", "CycleFC, ms", "deform_conv2d, ms", "linear, ms", "deform / ours", "ours / linear"]
    return f"{_table(head, rows)}\n\n{source(result)}"


def bench_active(result: dict[str, Any]) -> str:
    """ActiveMLP's layer against the authors' deformable convolution, forward and with the backward pass."""
    rows = []
    for case in result["cases"]:
        medians = [f"{1e3 * operator['median_s']:.1f}" for operator in case["operators"].values()]
        shape = "x".join(map(str, case["shape_nhwc"]))
        rows.append(
            [shape, str(case["share"]), case["pass"], *medians, _ratio(case["times_faster_than_deform_conv2d"])]
        )
    head = ["input (NHWC)", "share", "pass", "ours, ms", "deform_conv2d, ms", "deform / ours"]
    return f"{_table(head, rows)}\n\n{_measured(result)}"


def classification(result: dict[str, Any]) -> str:
    """Top-1 of runs of one length on one data set, and of the baseline."""
    classes = result["classes"]
    rows = [
        [run["model"], f"{run['parameters'] / 1e6:.1f} M", str(run["steps"]), *_accuracies(run["metrics"], classes)]
        for run in sorted(result["runs"], key=lambda run: -run["metrics"]["top1"])
    ]
    rows.append([result["baseline"]["model"], "", "", *_accuracies(result["baseline"]["metrics"], classes)])
    head = ["model", "parameters", f"steps in {result['runs'][0]['budget']}", "top-1", *classes]
    return f"{_table(head, rows)}\n\n{source(result)}"


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
    return f"{_table(head, rows)}\n\n{note} {source(result)}\n\n{_commands(result)}"


def first_hour(result: dict[str, Any]) -> str:
    """What the defaults come to in a time; the results file has the options that the runs chose by themselves."""
    rows = []
    for run in result["runs"]:
        scores = get_task(run["task"]).scores.columns(run["metrics"])
        names = [SHOWN[run["task"]][0], *(name for name in scores if name.startswith("IoU/"))]
        shown = ", ".join(f"{name.rpartition('/')[2].replace('_', ' ')} {scores[name]:.2f}" for name in names)
        rows.append(
            [
                f"`cyclemlp train {run['task']} --max-time {run['budget']}`",
                run["data"],
                run["budget"],
                str(run["images_seen"]),
                shown,
            ]
        )
    table = _table(["command", "data", "time in all", "images seen", "score"], rows)
    return f"{table}\n\n{result['note']} {source(result)}"


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
    table = _table(["model", "data", "IoU", "TP / (TP + FP + FN)", "F1", "PQ", "AJI"], rows)
    return f"{table}\n\n{result['note']} {source(result)}\n\n{_commands(result)}"


def windows(result: dict[str, Any]) -> str:
    """How much a mask changes where its image is seen in windows."""
    rows = [
        [str(row["window"]), str(row["overlap"]), f"{100 * row['other_class']:.3f} %",
         f"{row['mean_difference']:.4f}", f"{row['largest_difference']:.2f}"]
        for row in result["rows"]
    ]  # fmt: skip
    head = ["window", "overlap", "pixels of another class", "mean difference of probabilities", "largest"]
    what = f"{result['images']} images through `{result['model']}` with {result['head']}."
    return f"{_table(head, rows)}\n\n{what} {source(result)}"


def scene_memory(result: dict[str, Any]) -> str:
    """Peak memory on scenes of one width."""
    rows = [
        [f"{row['width']} x {row['height']}", f"{row['peak_bytes'] / 1e9:.2f}", f"{row['seconds'] / 60:.1f}"]
        for row in result["rows"]
    ]
    what = f"`{result['model']}` with {result['head']} and {result['classes']} classes."
    return f"{_table(['scene, pixels', 'peak memory, GB', 'minutes'], rows)}\n\n{what} {source(result)}"


def _commands(result: dict[str, Any]) -> str:
    """The commands of runs that a recipe of the package repeats; the others are left to the results file."""
    found = [command for run in result["runs"] if (command := by_recipe(run["command"], result["task"]))]
    if not found:
        return "\n".join(f"    {run['command']}" for run in result["runs"])
    lines = "\n".join(f"    {command}" for command in found)
    others = "\n\nThe commands of the other runs are in the results file." if len(found) < len(result["runs"]) else ""
    return lines + others


def by_recipe(command: str, task: str) -> str | None:
    """The same command with a recipe of the package, where one has the same options but for the model."""
    options = command_options(command)
    for name in packaged():
        recipe = read_yaml(FOLDER / f"{name}.yaml")
        if recipe.pop("task", None) == task and recipe | {"model": options.get("model")} == options:
            model = "" if recipe["model"] == options["model"] else f" --model {options['model']}"
            return f"cyclemlp train {task} --config {name} --data DATA{model}"
    return None


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
SHOWN_BY_CLASS = ("detection", "segmentation")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _accuracies(metrics: dict[str, Any], classes: list[str]) -> list[str]:
    return [f"{metrics['top1']:.3f}", *(f"{metrics['accuracy'][name]:.3f}" for name in classes)]


def bench_compare(result: dict[str, Any]) -> str:
    """Ours over each rival, with the targets."""
    rows = []
    for row in result["rows"]:
        sign = "at least" if row["target_is"] == "at least" else "at most"
        met = {True: "yes", False: "no", None: "-"}[row["met"]]
        times = [f"{1e3 * row['over_s']:.1f} / {1e3 * row['under_s']:.1f}", _ratio(row["ratio"])]
        rows.append(
            [str(row["size"]), str(row["batch"]), f"{row['over']} / {row['under']}", " / ".join(row["runtimes"]),
             *times, f"{sign} {row['target']:g}", met]
        )  # fmt: skip
    head = ["image", "batch", "time of / over", "in", "ms", "ratio", "target", "met"]
    return f"{_table(head, rows)}\n\n{_measured(result)}"


def bench_train(result: dict[str, Any]) -> str:
    """A training step: time, and what it takes in memory."""
    rows = [
        [name, f"{1e3 * step['median_s']:.0f}", _megabytes(step["step_bytes"]), _megabytes(step["kept_bytes"])]
        for name, step in result["steps"].items()
    ]
    faster, memory = _ratio(result["times_faster_than_authors"]), _ratio(result["memory_over_authors"])
    note = (
        f"{result['model']}, batch {result['batch']} at {result['size']}. The authors' operator takes {faster} times as"
        f" long as ours (target: at least {result['target_times_faster']:g}); ours takes {memory} of its step memory"
        f" (target: at most {result['target_memory']:g}) and {_ratio(result['kept_over_authors'])} of what it keeps."
    )
    head = ["training step", "ms", "step memory, MB", "kept, MB"]
    return f"{_table(head, rows)}\n\n{note} {_measured(result)}"


def bench_heads(result: dict[str, Any]) -> str:
    """A training step of whole networks with their default heads over that of the backbone; misses in bold."""

    def cell(ratio: float | None) -> str:
        return "-" if ratio is None else f"{ratio:.2f}" if ratio <= result["target"] else f"**{ratio:.2f}**"

    rows = [
        [name, ", ".join(str(each) for each in (task["head"], task["head_width"]) if each), str(task["size"]),
         cell(task["operations"]), cell(task["time"])]
        for name, task in result["tasks"].items()
    ]  # fmt: skip
    table = _table(["task", "head, width", "pixels", "operations", "time of a step"], rows)
    return f"{table}\n\nTarget: at most {result['target']:g} times `{result['model']}` alone. {_measured(result)}"


def bench_scale(result: dict[str, Any]) -> str:
    """Time and memory by size with the fitted exponents, and by batch."""
    sizes = sorted({point["size"] for curve in result["models"].values() for point in curve["points"]})
    rows = []
    for name, curve in result["models"].items():
        found = {point["size"]: _time_and_memory(point) for point in curve["points"]}
        fitted = [_ratio(curve["time_exponent"]), _ratio(curve["memory_exponent"])]
        rows.append([name, *(found.get(size, "") for size in sizes), *fitted])
    table = _table(["ms (MB)", *map(str, sizes), "time exponent", "memory exponent"], rows)
    batches = result["batches"]
    row = [f"{batches['model']} at {batches['size']}", *map(_time_and_memory, batches["points"])]
    by_batch = _table(["batch", *(str(point["batch"]) for point in batches["points"])], [row])
    left_out = [
        f"{name} from {curve['left_out']['size']} on: {curve['left_out']['reason']}."
        for name, curve in result["models"].items()
        if curve["left_out"]
    ]
    note = " ".join([f"Exponents are fitted from {result['fitted_from']} on.", *left_out])
    return f"{table}\n\n{by_batch}\n\n{note} {_measured(result)}"


def bench_loader(result: dict[str, Any]) -> str:
    """What the loader delivers over what a step takes, alone and while training."""
    rows = [
        [count, *(text for name, share in (("alone", "over_step"), ("training", "training_over_step"))
                  for text in (f"{found[name]['images_per_s']:.0f}", _ratio(found[share])))]
        for count, found in result["workers"].items()
    ]  # fmt: skip
    head = ["workers", "reading alone, images/s", "over the step", "while training, images/s", "over the step"]
    note = (
        f"{result['model']} at {result['size']}, batch {result['batch']}: a step takes"
        f" {result['step']['images_per_s']:.1f} images/s from memory. Pictures: {result['pictures']['kind']}."
    )
    return f"{_table(head, rows)}\n\n{note} {_measured(result)}"


def fuzz(result: dict[str, Any]) -> str:
    """How many damaged files of each kind have a result, are refused in a line, or show a fault."""
    rows = [[name, *map(str, counts.values())] for name, counts in result["subjects"].items()]
    sums = [sum(column) for column in zip(*(counts.values() for counts in result["subjects"].values()), strict=True)]
    rows.append(["all", *map(str, sums)])
    note = f"{result['cases']} damaged files, seed {result['seed']}."
    return f"{_table(['files', *next(iter(result['subjects'].values()))], rows)}\n\n{note} {source(result)}"


def faults(result: dict[str, Any]) -> str:
    """How many operations on files met a fault, and what was wrong afterwards."""
    rows = [
        [f"{name}, {fault}", *map(str, counts.values())]
        for name, by_fault in result["commands"].items()
        for fault, counts in by_fault.items()
    ]
    kinds = next(iter(next(iter(result["commands"].values())).values()))
    meaning = "; ".join(f"{name} is {text}" for name, text in result["faults"].items())
    chosen = "" if result["every"] == 1 else f" One in {result['every']} of the operations, evenly spread."
    return f"{_table(['command and fault', *kinds], rows)}\n\n{meaning}.{chosen} {source(result)}"


def _time_and_memory(point: dict[str, Any]) -> str:
    return f"{1e3 * point['median_s']:.0f} ({_megabytes(point['forward_bytes'])})"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.0f}"


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "demo": demo,
    "first-hour": first_hour,
    "demo-detection": demo_objects,
    "demo-instance-segmentation": demo_objects,
    "bench-op": bench_op,
    "bench-active": bench_active,
    "classification": classification,
    "bench-compare": bench_compare,
    "bench-train": bench_train,
    "bench-heads": bench_heads,
    "windows": windows,
    "scene-memory": scene_memory,
    "bench-scale": bench_scale,
    "bench-loader": bench_loader,
    "fuzz": fuzz,
    "faults": faults,
    "detection-bccd": runs,
    "instances-dsb2018": runs,
    "segmentation-dsb2018": runs,
    "instances-fluorescence": object_counts,
}


def source(result: dict[str, Any]) -> str:
    """One line that says where the numbers come from."""
    made = result["environment"]
    torch = _all(made["versions"], "torch")
    commit = f"commit {_all(made['commit'])}" if made["commit"] else f"version {_all(made['versions'], 'cyclemlp')}"
    return (
        f"*Measured by us: `{made['command']}` at {commit}, {made['date'][:10]}, {_all(made['processor'])}, "
        f"{_all(made['threads'])} threads, torch {torch}.*"
    )


def _all(value: Any, key: str | None = None) -> str:
    """A fact about the runs of a result, or all different ones where they do not agree."""
    values = value if isinstance(value, list) else [value]
    return ", ".join(dict.fromkeys(str(each if key is None else each[key]) for each in values))


def _measured(result: dict[str, Any]) -> str:
    """The source of a benchmark, and how disturbed it was."""
    if not result["busy"]:
        return source(result)
    share = 100 * result["foreign_share"]
    return f"{source(result)} **Other programs used {share:.0f} % of the machine meanwhile: for orientation only.**"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


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
