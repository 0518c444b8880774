"""`cyclemlp bench`: tables, JSON, and refusals in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import command, refused

from cyclemlp.export import speed

RESULT = {
    "target": "cyclemlp_nano", "task": "classification", "model": "cyclemlp_nano", "runtime": "torch", "size": 224,
    "batch": 2, "median_s": 0.02, "iqr_s": 0.001, "samples_s": [0.02], "images_per_s": 100.0,
    "peak_process_bytes": 5_000_000,
}  # fmt: skip
RECORD = {
    "bench": "speed",
    "environment": {"processor": "A Processor", "threads": 1},
    "rounds": 9,
    "foreign_share": 0.31,
    "busy": True,
    "results": [RESULT, {**RESULT, "runtime": "onnx", "peak_process_bytes": None}],
}


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options that the measurement gets."""
    given: dict[str, Any] = {}

    def measure_speed(targets: tuple[str, ...], plan: object, **options: object) -> dict[str, Any]:
        given.update(options, targets=targets, plan=plan)
        return RECORD

    monkeypatch.setattr(speed, "measure_speed", measure_speed)
    return given


def test_table(
    unmeasured: dict[str, Any], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert command("bench", "cyclemlp_nano", "runs/a", "--size", "224", "512", "--threads", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("A Processor, 1 threads, 9 rounds")
    assert lines[3].split() == ["cyclemlp_nano", "torch", "224", "2", "20.0", "(1.0)", "100.0", "5"]
    assert lines[4].split()[-1] == "-"
    assert "the machine was busy: other programs used 31 % of it" in caplog.text
    assert unmeasured["targets"] == ("cyclemlp_nano", "runs/a")
    assert unmeasured["sizes"] == (224, 512)
    assert unmeasured["plan"].threads == 1


@pytest.mark.usefixtures("unmeasured")
def test_json_and_file_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "speed.json"
    assert command("bench", "cyclemlp_nano", "--json", "--out", out) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text()) == RECORD


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to measure: give run folders, exported files or models"),
        (["cyclemlp_nano", "--size", "0"], "--size 0 is not allowed: 1 or more"),
        (["cyclemlp_nano", "--batch", "0"], "--batch 0 is not allowed: 1 or more"),
        (["cyclemlp_nano", "--rounds", "1"], "--rounds is 1; a spread needs 2 or more"),
        (["cyclemlp_nano", "--sizes", "3"], "Did you mean --size?"),
        (["op"], "`bench op` is now `python -m benchmarks operators`"),
        (["compare", "--plot", "pareto.svg"], "`bench compare` is now `python -m benchmarks compare`"),
        (["model", "cyclemlp_b1", "--size", "224"], "`bench model NAME` is now `cyclemlp bench NAME`"),
    ],
)
def test_refusals(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, "bench", *arguments)


def test_refuses_a_folder_as_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a folder; give a file in it, such as" in refused(capsys, "bench", "x", "--out", tmp_path)
