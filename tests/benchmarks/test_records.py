from benchmarks.records import ratio
from cyclemlp.inference.rounds import Timing


def test_ratio_of_medians() -> None:
    assert ratio(Timing((20.0, 20.5, 21.0)), Timing((2.0, 2.05, 2.1))) == 10.0


def test_no_ratio_where_the_spread_is_as_large_as_the_difference() -> None:
    steady, restless = Timing((2.0, 2.0, 2.0)), Timing((1.0, 3.0, 5.0))
    assert restless.spread == 2.0
    assert ratio(restless, steady) is None
    assert ratio(steady, restless) is None
    assert ratio(steady, steady) is None
