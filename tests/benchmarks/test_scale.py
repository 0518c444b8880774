import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.figures import draw_scale
from benchmarks.fresh import in_fresh_process
from benchmarks.scale import Limits, bench_scale, exponents, measure_point
from cyclemlp.inference.rounds import Plan
from cyclemlp.machine import peak_bytes


def point(_threads: int, _measure: Callable[..., Any], name: str, size: int, batch: int) -> dict[str, Any]:
    """Linear in the pixels in time, and the square of that in memory."""
    pixels = batch * size**2
    return {
        "size": size, "batch": batch, "median_s": pixels * 1e-6, "iqr_s": 0.0, "forward_bytes": pixels**2,
        "gflops_per_s": 100.0, "foreign_share": 0.5, "cores": [0],
    }  # fmt: skip


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.scale.in_fresh_process", point)


@pytest.mark.usefixtures("unmeasured")
def test_a_record(tmp_path: Path) -> None:
    limits = Limits(memory=10**15)
    record = json.loads(
        json.dumps(bench_scale(Plan(threads=1), {"cyclemlp_nano": 2048, "resnet18": 512}, limits=limits))
    )
    assert record["busy"]
    nano, small = record["models"]["cyclemlp_nano"], record["models"]["resnet18"]
    assert [each["size"] for each in nano["points"]] == [224, 512, 1024, 2048]
    assert nano["time_exponent"] == pytest.approx(1.0)
    assert nano["memory_exponent"] == pytest.approx(2.0)
    assert small["time_exponent"] is None  # one point from 512 on
    assert [each["batch"] for each in record["batches"]["points"]] == [1, 2, 4, 8, 16, 32, 64]
    draw_scale(record, tmp_path / "scale.svg")
    assert "<svg" in (tmp_path / "scale.svg").read_text()


@pytest.mark.usefixtures("unmeasured")
def test_points_over_a_limit_are_left_out_with_the_reason() -> None:
    record = bench_scale(Plan(threads=1), {"resnet18": 4096}, limits=Limits(seconds=2.0, memory=10**15))
    curve = record["models"]["resnet18"]
    assert [each["size"] for each in curve["points"]] == [224, 512, 1024]
    assert curve["left_out"] == {
        "size": 2048,
        "batch": 1,
        "reason": "a pass would take about 4 s, more than 2 s",
    }
    before = {"median_s": 0.1, "forward_bytes": 10**9}
    assert (
        Limits(memory=3 * 10**9).reason(before, 4) == "a pass would take about 4.0 GB, more than the 3.0 GB there are"
    )


def test_exponents_by_hand() -> None:
    sizes, seconds = (224, 512, 1024, 2048), (9.0, 1.0, 8.0, 64.0)  # 8 times for 4 times the pixels: 3 / 2
    points = [{"size": a, "median_s": b, "forward_bytes": None} for a, b in zip(sizes, seconds, strict=True)]
    found = exponents(points)
    assert found["time_exponent"] == pytest.approx(1.5)
    assert found["memory_exponent"] is None


def test_a_point_is_measured() -> None:
    measured = in_fresh_process(1, measure_point, "cyclemlp_nano", 64, 2)
    assert measured["median_s"] > 0
    assert measured["gflops_per_s"] > 0
    if peak_bytes() is not None:
        assert 0 < measured["forward_bytes"] < measured["peak_process_bytes"]
