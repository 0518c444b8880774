import pytest

from benchmarks.timing import Timing, ratio


def test_median_and_interquartile_range() -> None:
    timing = Timing((5.0, 1.0, 3.0, 2.0, 4.0))
    assert timing.median == 3.0
    assert timing.spread == 2.0
    assert timing.to_dict() == {"median_s": 3.0, "iqr_s": 2.0, "samples_s": [5.0, 1.0, 3.0, 2.0, 4.0]}


def test_one_measurement_has_no_spread() -> None:
    with pytest.raises(ValueError, match="1 measurements has no spread; it needs 2 or more"):
        Timing((1.0,))


def test_ratio_of_medians() -> None:
    assert ratio(Timing((20.0, 20.5, 21.0)), Timing((2.0, 2.05, 2.1))) == 10.0


def test_no_ratio_where_the_spread_is_as_large_as_the_difference() -> None:
    steady, restless = Timing((2.0, 2.0, 2.0)), Timing((1.0, 3.0, 5.0))
    assert restless.spread == 2.0
    assert ratio(restless, steady) is None
    assert ratio(steady, restless) is None
    assert ratio(steady, steady) is None
