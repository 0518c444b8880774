import pytest

from cyclemlp.data.sampling import evenly_spaced


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, []), (1, [0]), (2, [0, 5]), (3, [0, 3, 6]), (4, [0, 2, 5, 7]), (10, list(range(10))), (99, list(range(10)))],
)
def test_items_are_spread_over_their_order(count: int, expected: list[int]) -> None:
    assert evenly_spaced(range(10), count) == expected


def test_of_nothing_nothing_is_chosen() -> None:
    assert evenly_spaced([], 4) == []
