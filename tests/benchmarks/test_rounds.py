import os
from typing import Any

import pytest

from benchmarks import peak
from benchmarks.rounds import Plan, measure
from benchmarks.worker import Suite
from cyclemlp.errors import ConfigError


def test_each_suite_in_a_process_of_its_own() -> None:
    suites = [Suite(name, peak.cases, (1,)) for name in ("one", "another")]
    measured = measure(suites, Plan(rounds=3, sample_seconds=0.001, threads=1))
    assert set(measured.timings) == {("one", peak.NAME), ("another", peak.NAME)}
    assert all(len(timing.seconds) == 3 for timing in measured.timings.values())
    assert peak.gflops_per_second(measured.timings["one", peak.NAME]) > 0
    assert measured.foreign_share is None or 0 <= measured.foreign_share <= 1.1
    assert len(measured.cores) <= 1


def test_a_process_that_dies_is_named() -> None:
    broken: Any = os._exit
    with pytest.raises(RuntimeError, match="the process that measures 'broken' died"):
        measure([Suite("broken", broken, (3,))], Plan(rounds=2, threads=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": 1}, "--rounds is 1; a spread needs 2 or more"),
        ({"threads": 0}, "--threads is 0; allowed here are 1 to"),
        ({"threads": 10_000}, "--threads is 10000; allowed here are 1 to"),
    ],
)
def test_plans_that_cannot_be(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plan(**arguments)
