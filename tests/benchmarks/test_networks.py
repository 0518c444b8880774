import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import peak
from benchmarks.compare import BOUND, COMPARISONS, Comparison, bench_compare, groups_of, pareto
from benchmarks.figures import draw_pareto
from benchmarks.networks import Group, measure_groups
from benchmarks.records import summary
from benchmarks.runtimes import (
    AUTHORS,
    DEPLOYED,
    check_output,
    check_runtimes,
    export,
    exported_file,
    file_case,
    torch_case,
)
from benchmarks.subjects import Subject, authors_network, counts, inference_network, plain_network
from cyclemlp.errors import ConfigError
from cyclemlp.inference.rounds import Measurement, Plan, Suite, Timing

NANO = Subject("cyclemlp_nano", 64)


def test_all_three_forms_give_the_same_values() -> None:
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        wanted = plain_network(NANO)(images)
        for build in (inference_network, authors_network):
            torch.testing.assert_close(build(NANO)(images), wanted, rtol=1e-4, atol=1e-5)


def test_the_authors_form_has_neither_our_operator_nor_lean_training() -> None:
    kinds = {type(module).__name__ for module in authors_network(NANO).modules()}
    assert "AuthorsCycleFC" in kinds
    assert not kinds & {"CycleFC", "LeanMlp"}


def test_counts_are_those_of_the_paper() -> None:
    found = counts(Subject("cyclemlp_b2", 224))
    assert round(found["params"] / 1e6, 1) == 26.8
    assert round(found["flops"] / 1e9, 2) == 3.89
    assert round(found["multiply_adds"] / 1e9, 3) == 3.876


def measure_nothing(suites: Sequence[Suite], plan: Plan) -> Measurement:
    """Ours takes 1 s, everything else 2 s, the matrix product as long as it has operations over 1e12."""
    timings = {}
    for suite in suites:
        case = peak.NAME if suite.name == peak.NAME else "forward"
        seconds = peak.FLOPS / 1e12 if case == peak.NAME else 1.0 if suite.name.startswith("cyclemlp") else 2.0
        seconds = 3.0 if suite.name.endswith(AUTHORS) else seconds
        timings[suite.name, case] = Timing((seconds, seconds))
    return Measurement(timings, [0], 0.2, {suite.name: 5 for suite in suites})


def export_nothing(wanted: Iterable[tuple[Subject, str]], folder: Path, processes: int) -> None:
    pass


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.networks.measure", measure_nothing)
    monkeypatch.setattr("benchmarks.networks.export_all", export_nothing)


@pytest.mark.usefixtures("unmeasured")
def test_a_record_of_models() -> None:
    plan = Plan(rounds=2, threads=1)
    groups = [Group((Subject("cyclemlp_nano", size, 2),), ("eager", "onnx")) for size in (64, 96)]
    results = measure_groups(groups, plan)
    models = [entry for result in results for entry in result.entries()]
    record = json.loads(json.dumps(summary([each.measured for each in results], plan, "x") | {"models": models}))
    assert record["busy"]
    assert math.isclose(record["matrix_product"]["gflops_per_s"], 1000)
    assert [each["size"] for each in record["models"]] == [64, 96]
    small = record["models"][0]
    assert math.isclose(small["bound_s"], 2 * 2 * small["multiply_adds"] / 1e12)
    assert math.isclose(small["runtimes"]["onnx"]["over_bound"], 1 / small["bound_s"])
    assert small["runtimes"]["eager"]["peak_process_bytes"] == 5


@pytest.mark.usefixtures("unmeasured")
def test_rows_say_whether_the_target_was_met(tmp_path: Path) -> None:
    comparisons = [
        Comparison("cyclemlp_b1", "resnet50", 224, 0.62),
        Comparison("cyclemlp_b1", BOUND, 224, 1.1),
        Comparison("cyclemlp_b1", AUTHORS, 224, 2.1),
        Comparison("cyclemlp_b1", "cyclemlp_b2", 224, 0.8),
    ]
    record = bench_compare(Plan(rounds=2, threads=1), comparisons=comparisons)
    assert [row["met"] for row in record["rows"]] == [True, False, True, None]
    assert [row["ratio"] for row in record["rows"]][::2] == [0.5, 3.0]
    assert record["rows"][3]["ratio"] is None  # no difference, no ratio
    assert {point["model"] for point in record["pareto"]} == {"cyclemlp_b1", "cyclemlp_b2", "resnet50"}
    draw_pareto(record, tmp_path / "pareto.svg")
    assert "<svg" in (tmp_path / "pareto.svg").read_text()


def test_the_pareto_front_by_hand() -> None:
    def entry(model: str, seconds: float) -> dict[str, object]:
        return {"model": model, "size": 224, "batch": 1, "runtimes": {"onnx": {"median_s": seconds}}}

    points = pareto([entry("cyclemlp_b1", 1.0), entry("resnet50", 2.0), entry("cyclemlp_b2", 3.0), entry("vit", 0.1)])
    assert [(point["model"], point["front"]) for point in points] == [
        ("cyclemlp_b1", True),
        ("resnet50", False),
        ("cyclemlp_b2", True),
    ]


def test_what_shares_its_rounds() -> None:
    groups = groups_of(COMPARISONS)
    assert {key: len(group.subjects) * len(group.runtimes) for key, group in groups.items()} == {
        (224, 1, False): 10,
        (512, 1, False): 10,
        (224, 8, False): 4,
        (224, 1, True): 2,
        (512, 1, True): 2,
    }


def test_the_eager_case_runs() -> None:
    torch_case(NANO, "eager")["forward"]()


def test_the_exported_cases_run_after_a_comparison_with_torch(tmp_path: Path) -> None:
    for runtime in DEPLOYED:
        export(NANO, runtime, tmp_path)
        file_case(exported_file(NANO, runtime, tmp_path), 1)["forward"]()


def test_an_output_that_differs_is_not_measured() -> None:
    with pytest.raises(RuntimeError, match=r"OpenVINO differs from PyTorch by 5.0e-01 of the largest output"):
        check_output(np.array([1.0, 2.0]), np.array([2.0, 2.0]), "OpenVINO")
    check_output(np.array([1.0, 2.0001]), np.array([1.0, 2.0]), "OpenVINO")


def test_runtimes_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"--runtime 'onx' is not known. Did you mean 'onnx'\? Allowed are eager"):
        check_runtimes(["eager", "onx"])
