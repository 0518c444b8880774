"""A run that is killed and resumed ends as if nothing had happened, to the bit."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

STEPS = 9  # 6 images in batches of 2: passes over the data end at steps 3, 6 and 9
STOPPED = 3  # status of killed_runs.py where a run stopped on a signal in good order

Runs = dict[str, list[int]]


def killed_after_every_step(out: str) -> list[dict[str, Any]]:
    """Killed in step 2, resumed and killed in step 3, ...; readers change from run to run."""
    kills = [{"kill_in_step": step} for step in range(1, STEPS)]
    return [{"out": out, "resume": i > 0, "workers": (0, 2)[i % 2], **kill} for i, kill in enumerate([*kills, {}])]


def killed_once(out: str, workers: int, every: int, kill: dict[str, Any]) -> list[dict[str, Any]]:
    first = {"out": out, "workers": workers, "every": every}
    return [{**first, **kill}, {**first, "resume": True}]


SCENARIOS: dict[str, list[dict[str, Any]]] = {
    "whole": [{"out": "whole", "workers": 0}],
    "whole-2-workers": [{"out": "whole-2-workers", "workers": 2}],
    "every-step": killed_after_every_step("every-step"),
    "mid-epoch-0": killed_once("mid-epoch-0", 0, 2, {"kill_in_step": 5}),
    "mid-epoch-2": killed_once("mid-epoch-2", 2, 2, {"kill_in_step": 5}),
    "epoch-end-0": killed_once("epoch-end-0", 0, 3, {"kill_in_step": 6}),
    "epoch-end-2": killed_once("epoch-end-2", 2, 3, {"kill_in_step": 6}),
    "before-a-checkpoint": killed_once("before-a-checkpoint", 0, 4, {"kill_in_step": 2}),
    "while-writing": killed_once("while-writing", 0, 2, {"kill_while_writing": 3}),
    "ctrl-c": killed_once("ctrl-c", 2, 100, {"kill_in_step": 4, "signal": "SIGINT"}),
    "sigterm": killed_once("sigterm", 0, 100, {"kill_in_step": 4, "signal": "SIGTERM"}),
    "sigterm-to-all": killed_once("sigterm-to-all", 2, 100, {"kill_in_step": 4, "signal": "SIGTERM", "group": True}),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def statuses(root: Path, mask_folder: Path) -> Runs:
    """All scenarios, run once."""
    runs = [
        {**run, "out": str(root / run["out"]), "data": str(mask_folder), "steps": STEPS}
        for scenario in SCENARIOS.values()
        for run in scenario
    ]
    program = Path(__file__).with_name("killed_runs.py")
    done = subprocess.run(
        [sys.executable, str(program)],
        input=json.dumps(runs),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = iter(json.loads(done.stdout))
    return {name: [next(found) for _ in scenario] for name, scenario in SCENARIOS.items()}


def state(run_dir: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint


def tensors(value: Any, prefix: str = "") -> dict[str, Any]:
    """Every leaf of nested dicts and lists, by its path."""
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    else:
        return {prefix: value}
    return {key: leaf for name, part in items for key, leaf in tensors(part, f"{prefix}/{name}").items()}


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in found]


@pytest.mark.parametrize("name", SCENARIOS)
def test_ends_with_the_same_weights_and_optimiser_to_the_bit(name: str, root: Path, statuses: Runs) -> None:
    assert statuses[name][-1] == 0
    reference, run_dir = root / "whole", root / name
    assert (run_dir / "model.safetensors").read_bytes() == (reference / "model.safetensors").read_bytes()
    wanted, found = state(reference), state(run_dir)
    assert found["step"] == STEPS
    for part in ("model", "averaged", "optimizer"):
        expected, given = tensors(wanted[part]), tensors(found[part])
        assert given.keys() == expected.keys()
        assert len(given) > 10
        for key, value in expected.items():
            same = torch.equal(given[key], value) if isinstance(value, torch.Tensor) else given[key] == value
            assert same, f"{name}: {part}{key} differs"


@pytest.mark.parametrize("name", ["every-step", "mid-epoch-2", "epoch-end-0", "while-writing"])
def test_metrics_are_those_of_an_unbroken_run(name: str, root: Path, statuses: Runs) -> None:
    assert rows(root / name) == rows(root / "whole")


def test_kills_were_kills(statuses: Runs) -> None:
    assert statuses["whole"] == [0]
    assert statuses["every-step"] == [-9] * (STEPS - 1) + [0]
    assert {name: found[0] for name, found in statuses.items() if len(found) == 2} == {
        "mid-epoch-0": -9,
        "mid-epoch-2": -9,
        "epoch-end-0": -9,
        "epoch-end-2": -9,
        "before-a-checkpoint": -9,
        "while-writing": -9,
        "ctrl-c": STOPPED,
        "sigterm": STOPPED,
        "sigterm-to-all": STOPPED,
    }


def test_half_a_checkpoint_is_never_seen(root: Path, statuses: Runs) -> None:
    leftovers = {path.name for path in (root / "while-writing" / "checkpoints").iterdir()}
    assert leftovers == {"last.ckpt", "previous.ckpt", "best.ckpt", "sha256.txt"}


def test_weights_did_move_and_average_differs(root: Path, statuses: Runs) -> None:
    saved = state(root / "whole")
    live, mean = saved["model"]["classifier.weight"], saved["averaged"]["module.classifier.weight"]
    assert not torch.equal(live, mean)
