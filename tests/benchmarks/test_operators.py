import json
from collections.abc import Sequence

import pytest
import torch

from benchmarks.active_mixing import OPERATORS as MIXINGS
from benchmarks.active_mixing import bench_active, mixings_and_inputs
from benchmarks.operators import OPERATORS, bench_operators, operators_and_inputs
from cyclemlp.errors import ConfigError
from cyclemlp.inference.rounds import Measurement, Plan, Suite, Timing


@pytest.mark.parametrize("stepsize", [(1, 3), (5, 1)])
def test_ours_and_the_authors_give_the_same_values(stepsize: tuple[int, int]) -> None:
    found = operators_and_inputs((2, 5, 6, 7), stepsize)
    outputs = {name: function(*inputs) for name, (function, inputs) in found.items()}
    assert set(outputs) == set(OPERATORS)
    authors = outputs["deform_conv2d"].permute(0, 2, 3, 1)
    torch.testing.assert_close(outputs["cycle_fc"], authors, rtol=1e-5, atol=1e-5)
    assert outputs["linear"].shape == authors.shape


def measure_here(suites: Sequence[Suite], plan: Plan) -> Measurement:
    """As `measure`, without processes: each case runs, and then counts as having taken 1 s and 2 s."""
    timings = {}
    for suite in suites:
        for name, case in suite.build(*suite.arguments).items():
            case()
            timings[suite.name, name] = Timing((1.0, 2.0))
    return Measurement(timings, [0], None)


def test_the_record_is_json_with_medians_and_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.operators.measure", measure_here)
    plan = Plan(rounds=2, threads=1)
    record = json.loads(json.dumps(bench_operators(plan, shapes=((1, 4, 4, 6),))))
    assert record["bench"] == "op"
    assert record["environment"]["threads"] == 1
    assert not record["busy"]
    assert record["matrix_product"]["gflops_per_s"] > 0
    assert [case["pass"] for case in record["cases"]] == ["forward", "forward+backward"]
    for case in record["cases"]:
        assert case["shape_nhwc"] == [1, 4, 4, 6]
        assert set(case["operators"]) == set(OPERATORS)
        assert all(timing["median_s"] == 1.5 for timing in case["operators"].values())
        assert case["times_faster_than_deform_conv2d"] is None
        assert case["time_over_linear"] is None


@pytest.mark.parametrize(
    ("stepsize", "message"),
    [((3, 3), r"the authors' operator takes \(1, S\) and \(S, 1\) only"), ((1, 2), "must be odd and positive")],
)
def test_step_sizes_that_cannot_be(stepsize: tuple[int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bench_operators(Plan(), stepsize)


@pytest.mark.parametrize("share", [1, 2])
def test_ours_and_the_authors_give_the_same_values_and_gradients(share: int) -> None:
    found = mixings_and_inputs((2, 5, 6, 8), share)
    assert set(found) == set(MIXINGS)
    (ours, our_inputs), (theirs, their_inputs) = (found[name] for name in MIXINGS)
    out, expected = ours(*our_inputs), theirs(*their_inputs).permute(0, 2, 3, 1)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(out, our_inputs, torch.ones_like(out))
    wanted = torch.autograd.grad(expected, their_inputs, torch.ones_like(out))
    for k, (ours_k, theirs_k) in enumerate(zip(gradients, wanted, strict=True)):
        nhwc = theirs_k.permute(0, 2, 3, 1) if k < 2 else theirs_k.reshape(ours_k.shape)
        torch.testing.assert_close(ours_k, nhwc, rtol=1e-4, atol=1e-4)


def test_the_record_of_active_mixing_is_json_with_medians_and_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.active_mixing.measure", measure_here)
    record = json.loads(json.dumps(bench_active(Plan(rounds=2, threads=1), shares={(1, 4, 4, 6): 2})))
    assert record["bench"] == "active"
    assert [case["pass"] for case in record["cases"]] == ["forward", "forward+backward"]
    assert [case["target_times_faster"] for case in record["cases"]] == [2.0, None]
    for case in record["cases"]:
        assert set(case["operators"]) == set(MIXINGS)
        assert all(timing["median_s"] == 1.5 for timing in case["operators"].values())
        assert case["times_faster_than_deform_conv2d"] is None
