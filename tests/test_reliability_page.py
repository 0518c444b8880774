"""docs/reliability.md names tests and commands that are there."""

import re
from pathlib import Path

import pytest

from benchmarks.__main__ import app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tests/[\w/.]+)`", PAGE))))
def test_tests_of_the_page_are_there(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("line", sorted(set(re.findall(r"`python -m benchmarks ([^`]+)`", PAGE))))
def test_benchmarks_of_the_page_parse(line: str) -> None:
    app.parse_args(line.replace("N", "1").split(), exit_on_error=False, print_error=False)


def test_every_promise_has_a_test() -> None:
    promises = PAGE.partition("## Counts")[0]
    rows = re.findall(r"^\| (?!promise|---)(.+) \| (.+) \|$", promises, re.MULTILINE)
    assert len(rows) > 15
    assert [promise for promise, shown in rows if "`tests/" not in shown] == []
