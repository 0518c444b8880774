"""The commands whose files `benchmarks.faults` lets fail: trainings and predictions of a second each."""

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from cyclemlp.errors import UserError
from cyclemlp.files import JsonMapping
from cyclemlp.inference.journal import JOURNAL_NAME, Journal
from cyclemlp.tasks.card import CARD_NAME, WEIGHTS_NAME, build_model, classifier_card, load_model, save_model
from cyclemlp.tasks.recipes import CONFIG_NAME
from cyclemlp.tasks.replacing import LOCK
from cyclemlp.training.checkpoints import read_checkpoint
from cyclemlp.training.recorder import read_metrics
from cyclemlp.training.report import REPORT_NAME

MODEL, EDGE, STEPS, IMAGES = "test_byobnet", 32, 2, 4
"""The network is the smallest of timm: of the commands it is the files that count."""
FINISHED, HALF_PREDICTED = "finished", "half predicted"
"""Folders that commands go on from."""
_VARYING = ("seconds", "images_per_second")
"""Columns of metrics.csv that differ from run to run."""
_TRAINING = (
    f"--model {MODEL} --image-size {EDGE} --batch-size 2 --evaluations 2 --checkpoint-every 1 --log-every 1"
    " --workers 0 --device cpu"
)


@dataclass(frozen=True)
class Command:
    """A command that writes files into `sandbox`, next to which the files are that `write_inputs` makes."""

    arguments: Callable[[Path], list[str]]
    """Of the command, for a sandbox."""
    progress: Callable[[Path], int]
    """How much of its work is in the sandbox, to be kept whatever happens."""
    result: Callable[[Path], object]
    """What it is for; the same after an undisturbed command, and after any other that was continued."""
    begins_with: str = ""
    """The folder, next to the sandbox, whose content is there before."""

    def prepare(self, sandbox: Path) -> None:
        """Write what is in an empty sandbox before."""
        if self.begins_with:
            shutil.copytree(sandbox.parent / self.begins_with, sandbox, dirs_exist_ok=True)


def write_inputs(root: Path) -> None:
    """Write images with labels, images without, and a classifier."""
    numbers = np.random.default_rng(0)
    for place in ("train/dark", "train/light", "val/dark", "val/light", "images"):
        folder = root / "data" / place if place != "images" else root / place
        folder.mkdir(parents=True)
        for name in range(IMAGES if place == "images" else 2):
            low = 128 * place.endswith("light")
            pixels = numbers.integers(low, low + 128, (EDGE, EDGE, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}.png")
    torch.manual_seed(0)
    card = classifier_card(MODEL, EDGE, 3)
    (root / "network").mkdir()
    save_model(root / "network", build_model(card), card)


def half_written(sandbox: Path) -> list[str]:
    """The files in it that have their names and are not whole, each with what is wrong."""
    found = []
    for path in sorted(sandbox.rglob("*")):
        known = path.is_file() and not path.name.startswith(".") and "tensorboard" not in path.parts
        check = _CHECKS.get(path.suffix) if known else None
        try:
            if check is not None:
                check(path)
            if path.name == WEIGHTS_NAME and path.with_name(CARD_NAME).is_file():
                load_model(path.parent)
        except (UserError, OSError, ValueError, SyntaxError, AssertionError, RuntimeError, KeyError) as error:
            found.append(f"{path.relative_to(sandbox)}: {type(error).__name__}: {error}")
    return found


def _check_html(path: Path) -> None:
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>"), "it has no end"


def _check_csv(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if path.name == "metrics.csv":  # written row by row; readers leave out a last one that has no end
        assert all(int(row["step"]) > 0 and None not in row.values() for row in read_metrics(path.parent)), "bad row"
        return
    assert len({len(row) for row in rows}) == 1, "rows of several lengths"


def _check_image(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _check_weights(path: Path) -> None:
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118  not a dict
            file.get_tensor(name)


_CHECKS: Mapping[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".html": _check_html,
    ".csv": _check_csv,
    ".png": _check_image,
    ".ckpt": lambda path: torch.load(path, map_location="cpu", weights_only=True),
    ".safetensors": _check_weights,
}


def _train(steps: int) -> Callable[[Path], list[str]]:
    def arguments(sandbox: Path) -> list[str]:
        run = sandbox / "run"
        resume = ["--resume"] if (run / CONFIG_NAME).is_file() else []
        data = ["--data", str(sandbox.parent / "data"), "--out", str(run), "--steps", str(steps)]
        return ["train", "classification", *data, *_TRAINING.split(), *resume]

    return arguments


def _step(sandbox: Path) -> int:
    state = read_checkpoint(sandbox / "run")
    return 0 if state is None else int(state["step"])


def _trained(sandbox: Path) -> object:
    run = sandbox / "run"
    rows = [{name: value for name, value in row.items() if name not in _VARYING} for row in read_metrics(run)]
    hidden = sorted(path.name for path in run.rglob(".*") if path.name != LOCK)
    return (run / WEIGHTS_NAME).read_bytes(), rows, hidden, (run / REPORT_NAME).is_file()


def _predict(sandbox: Path) -> list[str]:
    out = sandbox / "out"
    resume = ["--resume"] if out.exists() else []
    run, images = sandbox.parent / "network", sandbox.parent / "images"
    return ["predict", str(run), str(images), "--out", str(out), "--device", "cpu", *resume]


def _predicted(sandbox: Path) -> int:
    journal, whole = sandbox / "out" / JOURNAL_NAME, sandbox / "out" / "predictions.json"
    if journal.is_file():
        lines = journal.read_text(encoding="utf-8").split("\n")[:-1]
        return sum('"entry"' in line for line in lines)
    return len(json.loads(whole.read_text(encoding="utf-8"))["images"]) if whole.is_file() else 0


def _predictions(sandbox: Path) -> object:
    return {path.name: path.read_bytes() for path in sorted((sandbox / "out").iterdir())}


def without_plots() -> AbstractContextManager[Any]:
    """While this is in place, the plots of reports are empty files: drawing them would take half of the time."""
    return patch("matplotlib.backends.backend_agg.FigureCanvasAgg.print_png")


def killed_after_half() -> AbstractContextManager[Any]:
    """While this is in place, a prediction is killed when half of the images are done."""
    usual, added = Journal.add, []

    def add(self: Journal, source: str, entry: JsonMapping) -> None:
        usual(self, source, entry)
        added.append(source)
        if len(added) == IMAGES // 2:
            os.kill(os.getpid(), signal.SIGKILL)

    return patch.object(Journal, "add", add)


COMMANDS: Mapping[str, Command] = {
    "training": Command(_train(STEPS), _step, _trained),
    "longer training": Command(_train(STEPS + 1), _step, _trained, FINISHED),
    "prediction": Command(_predict, _predicted, _predictions),
    "continued prediction": Command(_predict, _predicted, _predictions, HALF_PREDICTED),
}
