"""The tables of docs/speed.md from records, and the page as it stands."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.__main__ import app as benchmarks
from cyclemlp.cli import app
from cyclemlp.tasks.recipes import FOLDER, read_recipe
from cyclemlp.tasks.registry import get_task

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
SOURCE: dict[str, Any] = {
    "environment": {
        "command": "cyclemlp bench", "commit": "abc", "date": "2026-01-02T03:04:05", "processor": "P", "threads": 2,
        "versions": {"torch": "2"},
    },
    "busy": True,
    "foreign_share": 0.25,
}  # fmt: skip
POINT = {"size": 512, "batch": 1, "median_s": 0.25, "forward_bytes": 3_000_000}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render_results", ROOT / "scripts" / "render_results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_comparisons(script: ModuleType) -> None:
    row = {
        "size": 224, "batch": 1, "over": "cyclemlp_b1", "under": "resnet50", "runtimes": ["onnx", "openvino"],
        "over_s": 0.03, "under_s": 0.06, "ratio": 0.5, "target": 0.62, "target_is": "at most", "met": True,
    }  # fmt: skip
    text = script.bench_compare({**SOURCE, "rows": [row, {**row, "ratio": None, "met": None}]})
    start = "| 224 | 1 | cyclemlp_b1 / resnet50 | onnx / openvino | 30.0 / 60.0 |"
    assert f"{start} 0.50 | at most 0.62 | yes |" in text
    assert f"{start} - | at most 0.62 | - |" in text
    assert text.endswith("**Other programs used 25 % of the machine meanwhile: for orientation only.**")


def test_training_steps(script: ModuleType) -> None:
    text = script.bench_train(
        {
            **SOURCE, "busy": False, "model": "cyclemlp_b2", "size": 224, "batch": 8,
            "steps": {"ours": {"median_s": 1.5, "step_bytes": 2_000_000, "kept_bytes": None}},
            "times_faster_than_authors": 3.5, "target_times_faster": 3.3, "memory_over_authors": 0.5,
            "kept_over_authors": 0.5, "target_memory": 0.8,
        }
    )  # fmt: skip
    assert "| ours | 1500 | 2 | - |" in text
    assert "takes 3.50 times as long as ours (target: at least 3.3); ours takes 0.50 of its step memory" in text
    assert "orientation" not in text


def test_runs_of_several_seeds_have_a_row_for_each_model(script: ModuleType) -> None:
    run = {"task": "segmentation", "data": "cells", "parameters": 4_000_000, "budget": "9m"}
    scores = [("a", 100, 0.7), ("b", 90, 0.9), ("a", 200, 0.8)]
    runs = [
        {**run, "model": model, "steps": steps, "metrics": {"mIoU": score, "IoU": {}, "pixel_accuracy": 1.0}}
        for model, steps, score in scores
    ]
    text = script.over_seeds({**SOURCE, "note": "A note.", "runs": runs})
    assert "| cells | a | 4.0 M | 9m | 150 | mIoU | **0.750** ± 0.071 | 0.700, 0.800 |" in text
    assert "| cells | b | 4.0 M | 9m | 90 | mIoU | **0.900** | 0.900 |\n\nA note. *Measured by us" in text


def test_networks_side_by_side_have_a_row_for_each_score(script: ModuleType) -> None:
    run = {"task": "detection", "data": "cells", "parameters": 4_000_000, "budget": "15m", "model": "a", "steps": 10}
    metrics: dict[str, Any] = {"mAP": 0.5, "AP50": 0.8, "AP75": 0.6, "APs": None, "APm": None, "APl": None, "AP": {}}
    text = script.comparison({**SOURCE, "note": "", "runs": [{**run, "metrics": metrics}]})
    assert "| cells | a | 4.0 M | 15m | 10 | AP50 | **0.800** | 0.800 |" in text
    assert "| cells | a | 4.0 M | 15m | 10 | mAP | **0.500** | 0.500 |" in text


def test_the_demo_with_several_seeds(script: ModuleType) -> None:
    run = {"steps": 500, "seconds": 330.0, "metrics": {"IoU": {"ocean": 0.9, "lake": 0.5}, "mIoU": 0.7}}
    text = script.demo_seeds({**SOURCE, "note": "One thread.", "runs": [{**run, "sessions": [{"seed": 2}]}]})
    assert "| seed | steps | training | ocean | lake | mean |" in text
    assert "| 2 | 500 | 5.5 minutes | 0.900 | 0.500 | 0.700 |\n\nOne thread. *Measured" in text


def test_a_run_that_was_too_short_for_its_images_is_flagged(script: ModuleType) -> None:
    run = {"model": "a", "parameters": 4_000_000, "budget": "9m", "steps": 10, "images_seen": 80}
    runs = [{**run, "metrics": {"top1": 0.5, "accuracy": {"x": 0.5}}}]
    baseline = {"model": "colours", "metrics": {"top1": 0.6, "accuracy": {"x": 0.6}}}
    record = {**SOURCE, "classes": ["x"], "runs": runs, "baseline": baseline}
    assert "| a (too little time for one pass) |" in script.classification({**record, "images": {"train": 81}})
    assert "| a | 4.0 M |" in script.classification({**record, "images": {"train": 80}})


def test_damaged_files_and_failing_disks(script: ModuleType) -> None:
    subjects = {"png": {"results": 3, "refusals": 4, "faults": 0}, "voc": {"results": 1, "refusals": 2, "faults": 5}}
    text = script.fuzz({**SOURCE, "cases": 15, "seed": 7, "subjects": subjects})
    assert "| files | results | refusals | faults |" in text
    assert "| voc | 1 | 2 | 5 |\n| all | 4 | 6 | 5 |\n\n15 damaged files, seed 7. *Measured by us" in text
    counts = {"cases": 9, "lost": 1, "half-written": 2, "without a line": 3}
    record = {**SOURCE, "every": 1, "faults": {"full": "ENOSPC"}, "commands": {"training": {"full": counts}}}
    text = script.faults(record)
    assert "| command and fault | cases | lost | half-written | without a line |" in text
    assert "| training, full | 9 | 1 | 2 | 3 |\n\nfull is ENOSPC. *Measured by us" in text
    assert "One in 3 of the operations" in script.faults({**record, "every": 3})


def test_scaling(script: ModuleType) -> None:
    left_out = {"size": 1024, "batch": 1, "reason": "a pass would take too long"}
    curve = {"points": [POINT], "left_out": left_out, "time_exponent": 1.02, "memory_exponent": None}
    whole = {"points": [POINT, {**POINT, "size": 1024}], "left_out": None, "time_exponent": 1, "memory_exponent": 1}
    batches = {"model": "n", "size": 224, "points": [{**POINT, "batch": 2}], "left_out": None}
    record = {**SOURCE, "fitted_from": 512, "models": {"a": curve, "b": whole}, "batches": batches}
    text = script.bench_scale(json.loads(json.dumps(record)))
    assert "| ms (MB) | 512 | 1024 | time exponent | memory exponent |" in text
    assert "| a | 250 (3) |  | 1.02 | - |" in text
    assert "| n at 224 | 250 (3) |" in text
    assert "a from 1024 on: a pass would take too long." in text


def test_a_place_without_a_result_stays_as_it_is(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "ROOT", tmp_path)
    page = "<!-- results:bench-scale -->\n<!-- /results:bench-scale -->\n"
    assert script.render(page) == page


@pytest.mark.parametrize("name", sorted(set(re.findall(r"<!-- results:([\w-]+) -->", PAGE))))
def test_every_place_of_the_page_has_a_table(script: ModuleType, name: str) -> None:
    assert name in script.TABLES


@pytest.mark.parametrize("line", sorted(set(re.findall(r"^ {4}(cyclemlp .*?)(?:\s+#.*)?$", PAGE, re.MULTILINE))))
def test_commands_of_the_page_parse(line: str) -> None:
    app.parse_args(line.split()[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("line", sorted(set(re.findall(r"^ {4}python -m benchmarks (.*?)$", PAGE, re.MULTILINE))))
def test_benchmarks_of_the_page_parse(line: str) -> None:
    benchmarks.parse_args(line.split(), exit_on_error=False, print_error=False)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!http)[^)]+)\)", PAGE))))
def test_links_of_the_page_lead_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).exists()


def test_a_class_as_target_and_several_views_of_the_first_run(script: ModuleType) -> None:
    metrics = {"mIoU": 0.875, "pixel_accuracy": 0.97, "IoU": {"background": 0.95, "nucleus": 0.8}}
    run = {"model": "m", "parameters": 1_000_000, "seconds": 60.0, "images_seen": 8, "metrics": metrics, "command": "c"}
    views = {"scales": [1.0, 1.5], "flip": True, "metrics": {**metrics, "IoU": {"background": 0.96, "nucleus": 0.85}}}
    result = {**SOURCE, "task": "segmentation", "targets": {"IoU/nucleus": 0.85}, "note": "", "runs": [run]}
    text = script.runs({**result, "views": views})
    assert "| images seen | IoU nucleus | mIoU | pixel_accuracy | IoU background |" in text
    assert "| m | 1.0 M | 1 min | 8 | 0.800 | 0.875 | 0.970 | 0.950 |" in text
    assert "| the first, seen at 1 and 1.5 times its size, flipped too |  |  |  | 0.850 |" in text
    assert "Target of the first line: IoU nucleus at least 0.85." in text
    assert "the first, seen" not in script.runs(result)


SHOWN = {
    "nuclei": ("segmentation-dsb2018", ["IoU/nucleus"]),
    "nuclei-outlines": ("instances-dsb2018", ["mask_AP50", "mask_mAP"]),
    "blood-cells": ("detection-bccd", ["AP50", "mAP"]),
}
"""Recipes that we have run: the file of the result, of which they repeat the first run, and the scores they name."""


@pytest.mark.parametrize("recipe", SHOWN)
def test_recipes_repeat_the_runs_whose_scores_they_name(script: ModuleType, recipe: str) -> None:
    file, names = SHOWN[recipe]
    result = json.loads((ROOT / "results" / f"{file}.json").read_text(encoding="utf-8"))
    task, run = result["task"], result["runs"][0]
    assert script.by_recipe(run["command"], task) == f"cyclemlp train {task} --config {recipe} --data DATA"
    options = script.command_options(script.with_optimizer(run["command"]))
    assert read_recipe(recipe, options, task) == options
    text = (FOLDER / f"{recipe}.yaml").read_text(encoding="utf-8")
    scores = get_task(task).scores.columns(run["metrics"])
    assert f"# result:   results/{file}.json: {', '.join(f'{name} {scores[name]:.3f}' for name in names)}\n" in text
    command = re.search(r"^# command:  (cyclemlp .*)$", text, re.MULTILINE)
    assert command is not None
    app.parse_args(command[1].split()[1:], exit_on_error=False, print_error=False)


def test_a_run_without_a_recipe_keeps_its_command(script: ModuleType) -> None:
    command = "cyclemlp train segmentation --data DATA --model m --scale 0.5 1.0"
    assert script.command_options(command) == {"model": "m", "scale": [0.5, 1.0]}
    assert script.by_recipe(command, "segmentation") is None


def test_demos_of_detectors(script: ModuleType) -> None:
    boxes = {"AP": {"island": 0.25, "lake": 0.5}, "mAP": 0.375, "AP50": 0.75}
    masks = {f"{kind}_{name}": value for kind in ("mask", "box") for name, value in boxes.items()}
    made = {**SOURCE, "training": {"steps": 9, "seconds": 90.0}}
    row = "| boxes | 0.250 | 0.500 | 0.375 | 0.750 |"
    assert script.demo_objects({**made, "metrics": boxes}).count(row) == 1
    text = script.demo_objects({**made, "metrics": masks})
    assert (
        f"{row.replace('boxes', 'outlines')}\n{row}\n\n9 steps in 1.5 minutes of training from random weights." in text
    )


def test_widths_of_heads_are_those_of_the_commands(script: ModuleType) -> None:
    scores = {"mIoU": 0.6414, "pixel_accuracy": 0.9, "IoU": {"background": 0.9, "cell": 0.4}}
    run = {"task": "segmentation", "data": "nuclei", "budget": "9m", "steps": 23, "metrics": scores}
    run |= {"command": "cyclemlp train segmentation --data DATA --head-width 256 --rotate90 0.0"}
    text = script.head_widths({**SOURCE, "note": "So.", "runs": [run]})
    assert "| nuclei | 256 | 9m | 23 | mIoU 0.641 |" in text


def test_a_first_hour_has_a_line_for_each_command(script: ModuleType) -> None:
    masks = {"mIoU": 0.8, "pixel_accuracy": 0.9, "IoU": {"background": 0.9, "cell": 0.7}}
    boxes = {"mAP": 0.3, "AP50": 0.6, "AP75": 0.3, "APs": None, "APm": None, "APl": 0.3, "AP": {"cell": 0.3}}
    runs = [
        {
            "task": task,
            "command": f"cyclemlp train {task}",
            "data": "d",
            "budget": "15m",
            "images_seen": 7,
            "sessions": [{"foreign_load": 0.28}],
            "metrics": metrics,
        }
        for task, metrics in (("segmentation", masks), ("detection", boxes))
    ]
    text = script.first_hour({**SOURCE, "note": "So.", "runs": runs})
    shares = "mIoU 0.80, background 0.90, cell 0.70"
    assert f"| `cyclemlp train segmentation --max-time 15m` | d | 15m | 7 | 0.3 cores | {shares} |" in text
    assert "| `cyclemlp train detection --max-time 15m` | d | 15m | 7 | 0.3 cores | AP50 0.60 |" in text


def test_counts_of_objects_stand_below_the_published_ones(script: ModuleType) -> None:
    line = {"accuracy": 0.7, "F1": 0.8, "PQ": 0.6}
    objects = {"AJI": 0.5, "by_IoU": [{"IoU": 0.5, **line}, {"IoU": 0.9, **line}]}
    run = {
        "task": "instance-segmentation",
        "model": "m",
        "seconds": 60.0,
        "data": "d",
        "command": "cyclemlp train x --data d",
    }
    text = script.object_counts({**SOURCE, "task": "x", "note": "", "runs": [run | {"metrics": {"objects": objects}}]})
    rows = [row for row in text.splitlines() if row.startswith("|")][2:]
    assert rows[0].startswith("| StarDist, published")
    assert rows[1:] == [
        "| m, 1 min | d | 0.5 | 0.700 | 0.800 | 0.600 | 0.500 |",
        "|  |  | 0.9 | 0.700 | 0.800 | 0.600 |  |",
    ]


def test_heads_beside_the_backbone_alone(script: ModuleType) -> None:
    task = {"head": "retinanet", "head_width": 64, "size": 640, "operations": 1.5, "time": 2.0}
    text = script.bench_heads(
        {**SOURCE, "model": "m", "target": 1.8, "tasks": {"detection": task | {"time": None}, "x": task}}
    )
    assert "| detection | retinanet, 64 | 640 | 1.50 | - |" in text
    assert "| x | retinanet, 64 | 640 | 1.50 | **2.00** |" in text


def test_active_mixing_beside_the_authors_operator(script: ModuleType) -> None:
    case = {"shape_nhwc": [8, 7, 7, 512], "share": 8, "pass": "forward", "times_faster_than_deform_conv2d": 2.5}
    times = {"active_mix": {"median_s": 0.01}, "deform_conv2d": {"median_s": 0.025}}
    text = script.bench_active({**SOURCE, "cases": [case | {"operators": times}]})
    assert "| 8x7x7x512 | 8 | forward | 10.0 | 25.0 | 2.50 |" in text


def test_windows_beside_the_whole_image(script: ModuleType) -> None:
    row = {"window": 512, "overlap": 64, "other_class": 0.00288, "mean_difference": 0.0035, "largest_difference": 0.82}
    text = script.windows({**SOURCE, "model": "m", "head": "h", "images": 3, "rows": [row]})
    assert "| 512 | 64 | 0.288 % | 0.0035 | 0.82 |" in text


def test_memory_of_scenes(script: ModuleType) -> None:
    rows = [{"width": 20000, "height": 1536, "seconds": 90.0, "peak_bytes": 1_500_000_000}]
    text = script.scene_memory({**SOURCE, "model": "m", "head": "h", "classes": 2, "rows": rows})
    assert "| 20000 x 1536 | 1.50 | - | 1.5 |" in text
    rows[0] |= {"exact": True, "file_bytes": 3_200_000_000}
    text = script.scene_memory({**SOURCE, "model": "m", "head": "h", "classes": 2, "rows": rows})
    assert "| 20000 x 1536, `--exact` | 1.50 | 3.2 | 1.5 |" in text
