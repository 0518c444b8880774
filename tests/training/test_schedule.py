import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclemlp.training.schedule import Clock, Schedule, share_done

SHAPES = st.sampled_from(["poly", "cosine"])


@given(SHAPES, st.floats(0, 0.9))
def test_rises_to_its_peak_and_falls_to_zero(shape: str, warmup: float) -> None:
    assert Schedule(shape, warmup).factor(warmup) == pytest.approx(1.0)
    assert Schedule(shape, warmup).factor(1.0) == pytest.approx(0.0, abs=1e-12)
    assert warmup == 0 or Schedule(shape, warmup).factor(0.0) == 1e-3


@given(SHAPES, st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.9))
def test_moves_one_way_on_each_side_of_the_peak(shape: str, a: float, b: float, warmup: float) -> None:
    low, high = sorted((a, b))
    first, second = Schedule(shape, warmup).factor(low), Schedule(shape, warmup).factor(high)
    assert 0 <= first <= 1
    if high < warmup:
        assert first <= second
    elif low >= warmup:
        assert first >= second


def test_half_way() -> None:
    assert Schedule("cosine", 0.0).factor(0.5) == pytest.approx(0.5)
    assert Schedule("poly", 0.0).factor(0.5) == pytest.approx(0.5**0.9)
    assert Schedule("poly", 0.1).factor(0.05) == pytest.approx(0.5)


def test_a_power_of_one_is_a_straight_line() -> None:
    assert Schedule("poly", power=1.0).factor(0.3) == pytest.approx(0.7)


def test_multistep_is_cut_after_the_eighth_and_eleventh_of_twelve_epochs() -> None:
    schedule = Schedule("multistep", warmup=0.01)
    assert [round(schedule.factor(epoch / 12), 9) for epoch in range(1, 13)] == [1.0] * 7 + [0.1] * 3 + [0.01] * 2


def test_whichever_limit_is_nearer_counts() -> None:
    assert share_done(5, 10, 1.0, 100.0) == 0.5
    assert share_done(1, 10, 50.0, 100.0) == 0.5
    assert share_done(5, None, 30.0, 100.0) == 0.3
    assert share_done(5, 10, 1e9, None) == 0.5
    assert share_done(20, 10, 0.0, None) == 1.0


def test_clock_goes_on_from_earlier_sessions() -> None:
    clock = Clock()
    assert clock.elapsed() == 0.0
    clock.resume_from(40.0)
    assert clock.elapsed() == 40.0
    clock.start()
    assert clock.elapsed() >= 40.0
