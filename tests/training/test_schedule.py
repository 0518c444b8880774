import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclemlp.training.schedule import Clock, rate_factor, share_done

SHAPES = st.sampled_from(["poly", "cosine"])


@given(SHAPES, st.floats(0, 0.9))
def test_rises_to_its_peak_and_falls_to_zero(shape: str, warmup: float) -> None:
    assert rate_factor(warmup, warmup, shape) == pytest.approx(1.0)
    assert rate_factor(1.0, warmup, shape) == pytest.approx(0.0, abs=1e-12)
    assert warmup == 0 or rate_factor(0.0, warmup, shape) == 1e-3


@given(SHAPES, st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.9))
def test_moves_one_way_on_each_side_of_the_peak(shape: str, a: float, b: float, warmup: float) -> None:
    low, high = sorted((a, b))
    first, second = rate_factor(low, warmup, shape), rate_factor(high, warmup, shape)
    assert 0 <= first <= 1
    if high < warmup:
        assert first <= second
    elif low >= warmup:
        assert first >= second


def test_half_way() -> None:
    assert rate_factor(0.5, 0.0, "cosine") == pytest.approx(0.5)
    assert rate_factor(0.5, 0.0, "poly") == pytest.approx(0.5**0.9)
    assert rate_factor(0.05, 0.1, "poly") == pytest.approx(0.5)


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
