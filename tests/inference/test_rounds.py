import os
from collections.abc import Mapping
from typing import Any

import pytest

from cyclemlp.errors import ConfigError
from cyclemlp.inference.rounds import Case, Measurement, Plan, Suite, Timing, disturbance, measure


def sums() -> Mapping[str, Case]:
    """Built in the worker's process; the name of the case says how many threads torch uses there."""
    import torch

    return {f"{torch.get_num_threads()} threads": lambda: sum(range(1000))}


def refused() -> Mapping[str, Case]:
    raise ConfigError("no such network")


def test_each_suite_in_a_process_of_its_own() -> None:
    suites = [Suite(name, sums) for name in ("one", "another")]
    measured = measure(suites, Plan(rounds=3, sample_seconds=0.001, threads=1))
    assert set(measured.timings) == {("one", "1 threads"), ("another", "1 threads")}
    assert all(len(timing.seconds) == 3 for timing in measured.timings.values())
    assert all(timing.median > 0 for timing in measured.timings.values())
    assert measured.foreign_share is None or 0 <= measured.foreign_share <= 1.1
    assert len(measured.cores) <= 1
    assert set(measured.peak_bytes) == {"one", "another"}


def test_what_a_suite_raises_while_it_is_built_is_raised_here() -> None:
    with pytest.raises(ConfigError, match="no such network"):
        measure([Suite("refused", refused)], Plan(rounds=2, threads=1))


def test_the_worst_disturbance_counts() -> None:
    quiet, busy, unknown = (Measurement({}, [], share) for share in (0.01, 0.3, None))
    assert disturbance([quiet, busy, unknown]) == {"foreign_share": 0.3, "busy": True}
    assert disturbance([quiet]) == {"foreign_share": 0.01, "busy": False}
    assert disturbance([unknown]) == {"foreign_share": None, "busy": False}


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


def test_median_and_interquartile_range() -> None:
    timing = Timing((5.0, 1.0, 3.0, 2.0, 4.0))
    assert timing.median == 3.0
    assert timing.spread == 2.0
    assert timing.to_dict() == {"median_s": 3.0, "iqr_s": 2.0, "samples_s": [5.0, 1.0, 3.0, 2.0, 4.0]}


def test_one_measurement_has_no_spread() -> None:
    with pytest.raises(ValueError, match="1 measurements has no spread; it needs 2 or more"):
        Timing((1.0,))
