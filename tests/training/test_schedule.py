import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclemlp.tasks.options import Optimisation, ScheduleName
from cyclemlp.training.schedule import Clock, rate_factor, share_done


def factor(schedule: ScheduleName, progress: float, **options: float) -> float:
    return rate_factor(Optimisation(schedule=schedule, **{"warmup": 0.0, **options}), progress)  # type: ignore[arg-type]


SHAPES = st.sampled_from(["poly", "cosine"])


@given(SHAPES, st.floats(0, 0.9))
def test_rises_to_its_peak_and_falls_to_zero(shape: ScheduleName, warmup: float) -> None:
    assert factor(shape, warmup, warmup=warmup) == pytest.approx(1.0)
    assert factor(shape, 1.0, warmup=warmup) == pytest.approx(0.0, abs=1e-12)
    assert warmup == 0 or factor(shape, 0.0, warmup=warmup) == 1e-3


@given(SHAPES, st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.9))
def test_moves_one_way_on_each_side_of_the_peak(shape: ScheduleName, a: float, b: float, warmup: float) -> None:
    low, high = sorted((a, b))
    first, second = factor(shape, low, warmup=warmup), factor(shape, high, warmup=warmup)
    assert 0 <= first <= 1
    if high < warmup:
        assert first <= second
    elif low >= warmup:
        assert first >= second


def test_half_way() -> None:
    assert factor("cosine", 0.5) == pytest.approx(0.5)
    assert factor("poly", 0.5) == pytest.approx(0.5**0.9)
    assert factor("poly", 0.05, warmup=0.1) == pytest.approx(0.5)


def test_a_power_of_one_is_a_straight_line() -> None:
    assert factor("poly", 0.3, poly_power=1.0) == pytest.approx(0.7)


def test_multistep_is_cut_after_the_eighth_and_eleventh_of_twelve_epochs() -> None:
    assert [round(factor("multistep", epoch / 12, warmup=0.01), 9) for epoch in range(1, 13)] == [1.0] * 7 + [
        0.1
    ] * 3 + [0.01] * 2


def test_whichever_limit_is_nearer_counts() -> None:
    assert share_done(5, 10, 1.0, 100.0) == 0.5
    assert share_done(1, 10, 50.0, 100.0) == 0.5
    assert share_done(5, None, 30.0, 100.0) == 0.3
    assert share_done(5, 10, 1e9, None) == 0.5
    assert share_done(20, 10, 0.0, None) == 1.0


def test_clock_goes_on_from_earlier_sessions() -> None:
    clock = Clock()
    assert clock.elapsed() == 0.0
    clock.before = 40.0
    assert clock.elapsed() == 40.0
    clock.start()
    assert clock.elapsed() >= 40.0
