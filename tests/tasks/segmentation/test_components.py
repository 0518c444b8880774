import numpy as np
import pytest

from cyclemlp.tasks.segmentation.components import component_row
from cyclemlp.tasks.segmentation.predict import SegmentationResult

MASK = np.array(
    [
        [1, 1, 0, 0, 2],
        [0, 1, 0, 0, 2],
        [0, 0, 1, 0, 0],  # touches the first object at a corner
        [0, 0, 0, 0, 1],
    ],
    dtype=np.uint8,
)


def result(first: str) -> SegmentationResult:
    return SegmentationResult(MASK, (first, "cell", "speck"), np.zeros((*MASK.shape, 3), dtype=np.uint8))


def test_objects_are_those_counted_by_hand() -> None:
    first, second, third = result("background").objects()
    assert first["class"] == second["class"] == "cell"
    assert first["area"] == 4
    assert first["box"] == [0, 0, 3, 3]
    assert first["centroid"] == pytest.approx([(0 + 1 + 1 + 2) / 4 + 0.5, (0 + 0 + 1 + 2) / 4 + 0.5])
    assert second == {"class": "cell", "area": 1, "centroid": [4.5, 3.5], "box": [4, 3, 5, 4]}
    assert third == {"class": "speck", "area": 2, "centroid": [4.5, 1.0], "box": [4, 0, 5, 2]}
    assert component_row(third) == ["speck", 2, "4.50", "1.00", 4, 0, 5, 2]


def test_class_0_is_counted_where_it_is_no_background() -> None:
    assert [entry["class"] for entry in result("ocean").objects()] == ["ocean", "cell", "cell", "speck"]
