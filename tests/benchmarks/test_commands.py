"""`python -m benchmarks` as it is called: tables, JSON, and refusals in one line."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import command_line
import pytest

from benchmarks import records
from benchmarks.__main__ import main

ROOT = Path(__file__).parents[2]


def timing(median: float) -> dict[str, Any]:
    return {"median_s": median, "iqr_s": median / 10, "samples_s": [median]}


def record(*_: object) -> dict[str, Any]:
    """What `bench_operators` returns, without measuring."""
    case = {
        "shape_nhwc": [8, 56, 56, 64],
        "pass": "forward",
        "operators": {"cycle_fc": timing(0.002), "deform_conv2d": timing(0.04), "linear": timing(0.0019)},
        "times_faster_than_deform_conv2d": 20.0,
        "target_times_faster": 15.0,
        "time_over_linear": None,
        "target_time_over_linear": 1.5,
    }
    backward = {**case, "pass": "forward+backward", "target_times_faster": None, "target_time_over_linear": None}
    return {
        "bench": "op",
        "environment": {"processor": "A Processor", "threads": 2},
        "rounds": 15,
        "stepsize": [1, 3],
        "foreign_share": 0.31,
        "busy": True,
        "matrix_product": {"gflops_per_s": 180.0},
        "cases": [case, backward],
    }


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.operators.bench_operators", record)


command = partial(command_line.status_of, main)


def test_table(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    assert command("operators") == 0
    printed = capsys.readouterr().out
    (forward, backward) = (line.split() for line in printed.splitlines() if line.strip().startswith("8x56x56x64"))
    row = ["8x56x56x64", "2.000", "(0.200)", "40.000", "(4.000)", "1.900", "(0.190)", "20.00"]
    assert forward == [*row, "(>=", "15)", "-", "(<=", "1.5)"]
    assert backward == [*row, "-"]
    assert "A Processor, 2 threads, 15 rounds" in printed
    assert "the machine was busy: other programs used 31 % of it" in caplog.text


def test_json_and_file_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "op.json"
    assert command("operators", "--json", "--out", out) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text()) == record()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["operators", "--rounds", "1"], "--rounds is 1; a spread needs 2 or more"),
        (["operators", "--threads", "0"], "--threads is 0; allowed here are 1 to"),
        (["operators", "--round", "3"], "Did you mean --rounds?"),
        (["operators", "--rounds", "many"], "rounds"),
        (["operator"], "operator"),
        (["op"], "op"),
    ],
)
def test_refusals_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_refuses_a_folder_as_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("operators", "--out", tmp_path) == 2
    assert "is a folder; give a file in it, such as" in capsys.readouterr().err


def test_help_lists_the_benchmarks() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in (
        "operators", "active", "train", "scale", "loader", "resolution", "receptive-field", "robustness", "compare",
        "fuzz", "faults",
    ):  # fmt: skip
        assert f" {name} " in done.stdout


def test_the_record_says_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/__main__.py", "operators", "--out", "a b.json"])
    assert records.command_line() == "python -m benchmarks operators --out 'a b.json'"
