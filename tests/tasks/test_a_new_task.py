"""A task is one folder and one registration: `tests/toy_task` is known to every command, with no change in cyclemlp."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cyclemlp
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.registry import get_task, register_task

OPTIONS = (
    "--batch-size",
    "4",
    "--optimizer",
    "adamw",
    "--lr",
    "0.003",
    "--ema",
    "0",
    "--workers",
    "0",
    "--device",
    "cpu",
)
FOLDERS = [str(Path(__file__).parents[1]), str(Path(cyclemlp.__file__).parents[1])]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey images whose values are their brightness."""
    root, random = tmp_path_factory.mktemp("values"), np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            left, right = random.uniform(0, 255, 2)
            values = np.linspace(left, right, 50).astype(np.uint8)[None].repeat(40, 0)
            for kind, pixels in (("images", values[..., None].repeat(3, 2)), ("values", values)):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / kind / split / f"{number}.png")
    return root


def run(*command_lines: tuple[object, ...]) -> tuple[list[str], str]:
    """What each of these commands prints, and what they log."""
    done = subprocess.run(
        [sys.executable, "-m", "toy_task"],
        input="".join(json.dumps([*map(str, line)]) + "\n" for line in command_lines),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(FOLDERS), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\f")[:-1], done.stderr


def test_every_command_knows_it(data: Path, tmp_path: Path) -> None:
    train = ("train", "pixel-regression", "--out")
    image = data / "images" / "val" / "0.png"
    printed, log = run(
        ("train", "--help"),
        ("train", "pixel-regression", "--help-all"),
        (*train, tmp_path / "whole", "--data", data, *OPTIONS, "--steps", 40, "--json"),
        (*train, tmp_path / "parts", "--data", data, *OPTIONS, "--steps", 3, "--json"),
        (*train, tmp_path / "parts", "--resume", "--steps", 5, "--json"),
        ("eval", tmp_path / "whole", "--device", "cpu", "--scales", 1, 1.5, "--flip"),
        ("eval", tmp_path / "whole", "--device", "cpu", "--out", tmp_path / "scores", "--json"),
        ("predict", tmp_path / "whole", image, "--out", tmp_path / "out", "--json"),
        ("predict", tmp_path / "whole", image, "--out", tmp_path / "out"),
        ("predict", tmp_path / "parts", image, "--out", tmp_path / "less", "--json"),
    )
    tasks, options, whole, parts, resumed, table, scores, predicted, line, less = printed
    assert "pixel-regression" in tasks
    assert "Train a network that gives every pixel a value." in tasks
    assert "--distance" in options
    _check_runs(tmp_path, json.loads(whole), json.loads(parts), json.loads(resumed), log)
    _check_table(table.splitlines(), data)
    assert json.loads(scores)["metrics"] == json.loads(whole)["metrics"]
    assert json.loads((tmp_path / "scores" / "scores.json").read_text()) == json.loads(scores)
    _check_prediction(json.loads(predicted), json.loads(less), image)
    assert line.startswith(f"{image}: mean 0.")


def _check_runs(folder: Path, whole: dict[str, Any], parts: dict[str, Any], resumed: dict[str, Any], log: str) -> None:
    assert whole["task"] == "pixel-regression"
    assert parts["metrics"]["closeness"] + 0.1 < whole["metrics"]["closeness"] < 1  # it learns
    assert parts["metrics"] != resumed["metrics"]
    assert f"continuing {folder / 'parts'} from step 3" in log
    for name in ("model.safetensors", "model.json", "metrics.csv", "report.html", "checkpoints/best.ckpt"):
        assert (folder / "parts" / name).is_file()
    report = (folder / "whole" / "report.html").read_text(encoding="utf-8")
    assert report.count('<img class="sample"') == 2
    assert "closeness_of" in report


def _check_table(lines: list[str], data: Path) -> None:
    title, views, *rows = lines
    assert title == f"cyclemlp_nano on 2 images of {data}, split val"
    assert views == "averaged over scales 1 1.5, each mirrored as well"
    assert [row.split()[0] for row in rows] == ["class", "value", "closeness"]


def _check_prediction(predicted: dict[str, Any], less: dict[str, Any], image: Path) -> None:
    assert predicted["task"] == "pixel-regression"
    (entry,) = predicted["images"]
    assert entry["size"] == {"height": 40, "width": 50}
    # How near 40 steps come depends on the processor's rounding; that they learn is seen in the scores of _check_runs.
    trained, barely_trained = (_correlation(each["images"][0]["values"], image) for each in (predicted, less))
    assert trained > 0.1
    assert trained != barely_trained  # each run predicts with its own network


def _correlation(values: str, image: Path) -> float:
    with Image.open(values) as found, Image.open(image) as shown:
        pairs = np.stack([np.asarray(each.convert("L")).reshape(-1) for each in (found, shown)])
    return 0.0 if (pairs == pairs[:, :1]).all(1).any() else float(np.corrcoef(pairs)[0, 1])  # none of a constant


def test_a_name_is_given_once() -> None:
    register_task("segmentation", "cyclemlp.tasks.segmentation.task:SegmentationTask")  # as it is
    with pytest.raises(ValueError, match="there is a task 'segmentation' already"):
        register_task("segmentation", "toy_task.task:PixelRegressionTask")
    with pytest.raises(ConfigError, match=r"task 'segmentatoin': .* Did you mean 'segmentation'\?"):
        get_task("segmentatoin")
