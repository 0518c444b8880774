"""Of two processes that train together one fails: both end, within seconds, each with one line."""

from typing import Any

import pytest
from training.failing_processes import run_all

LEFT = "ended without a word, as when it is killed because memory runs out"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_all(tmp_path_factory.mktemp("peers"))


@pytest.mark.parametrize(
    ("name", "statuses", "lines"),
    [
        ("damaged image in process 1", [2, 2], ["process 1 failed: a.png is damaged", "a.png is damaged: replace it"]),
        ("damaged image in process 0", [2, 2], ["a.png is damaged: replace it", "process 0 failed: a.png is damaged"]),
        ("no number in process 1", [2, 2], ["process 1 failed: training stopped: the loss", "training stopped: the"]),
        ("while process 0 is busy", [2, 2], ["process 1 failed: a.png is damaged", "a.png is damaged: replace it"]),
        ("fault of ours in process 1", [2, 1], ["process 1 failed: KeyError 'x'", None]),
        ("process 1 killed", [2, -9], [f"another process {LEFT}", None]),
        ("process 0 killed", [-9, 2], [None, LEFT]),
    ],
)
def test_all_end_in_a_line(name: str, statuses: list[int], lines: list[str | None], cases: dict[str, Any]) -> None:
    """But for the one with a fault of ours, which shows its traceback, and the one that is killed."""
    case = cases[name]
    assert case["statuses"] == statuses
    assert case["seconds"] < 20  # on a busy machine; it is a minute where one waits for the other
    for found, expected in zip(case["lines"], lines, strict=True):
        if expected is not None:
            (line,) = found
            assert line.startswith("cyclemlp: ")
            assert expected in line
