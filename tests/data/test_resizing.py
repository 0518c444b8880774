"""The size rule, by hand."""

import pytest

from cyclemlp.data.resizing import ResizeRule


@pytest.mark.parametrize(
    ("edges", "sides", "wanted"),
    [
        ((300, 400), (None, None), 1.0),
        ((256, 400), (512, None), 2.0),
        ((400, 256), (512, 2048), 2.0),
        ((256, 2048), (512, 2048), 1.0),
        ((100, 4096), (None, 2048), 0.5),
        ((100, 200), (None, 2048), 1.0),
    ],
)
def test_factor(edges: tuple[int, int], sides: tuple[int | None, int | None], wanted: float) -> None:
    assert ResizeRule(1.0, *sides).factor(*edges) == wanted
