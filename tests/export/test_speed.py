"""How fast networks are: what is measured of a run folder, an exported file and a model, and what is refused."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from every_format import needs_pt2

from cyclemlp.errors import CheckpointError, ConfigError
from cyclemlp.export import speed
from cyclemlp.export.run import export_run
from cyclemlp.export.speed import measure_speed
from cyclemlp.inference.rounds import Measurement, Plan, Suite, Timing
from cyclemlp.models.cyclemlp import SIZES, CycleMLPSizes
from cyclemlp.tasks.card import ModelCard, build_model, save_model

pytestmark = pytest.mark.usefixtures("one_thread")
PLAN = Plan(rounds=2, threads=1)


def measure_here(suites: Sequence[Suite], _plan: Plan) -> Measurement:
    """As `measure`, without processes: each case runs, and then counts as having taken half a second."""
    timings = {}
    for suite in suites:
        for name, case in suite.build(*suite.arguments).items():
            outputs = case()
            assert isinstance(outputs, tuple)
            assert all(np.isfinite(output).all() for output in outputs)
            timings[suite.name, name] = Timing((0.5, 0.5))
    return Measurement(timings, [0], 0.2, {suite.name: 7 for suite in suites})


@pytest.fixture(autouse=True)
def measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "measure", measure_here)


@pytest.fixture(autouse=True)
def one_block_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting takes seconds a block, and every block is exported alike."""
    monkeypatch.setitem(SIZES, "cyclemlp_nano", CycleMLPSizes((8, 8, 16, 16), (1, 1, 1, 1), (1, 1, 1, 1)))


def save_run(folder: Path, card: ModelCard) -> Path:
    save_model(folder, build_model(card), card)
    return folder


def classifier(folder: Path) -> Path:
    card = ModelCard("classification", "cyclemlp_nano", "linear", ("a", "b"), image_size=64, crop_pct=1.0)
    return save_run(folder, card)


def test_a_model_in_every_runtime_at_several_batches() -> None:
    record = json.loads(json.dumps(measure_speed(["cyclemlp_nano"], PLAN, sizes=[64], batches=[1, 2], command="c")))
    assert record["busy"]
    assert record["foreign_share"] == 0.2
    assert record["environment"]["command"] == "c"
    found = [(each["runtime"], each["size"], each["batch"], each["images_per_s"]) for each in record["results"]]
    runtimes = ("torch", "onnx", "openvino")
    assert found == [(runtime, 64, batch, 2.0 * batch) for batch in (1, 2) for runtime in runtimes]
    assert all(each["peak_process_bytes"] == 7 for each in record["results"])


def test_a_run_at_the_size_it_was_trained_on_and_at_others(tmp_path: Path) -> None:
    run = str(classifier(tmp_path))
    (at_training_size,) = measure_speed([run], PLAN, runtimes=["torch"])["results"]
    assert at_training_size["size"] == 64
    (larger,) = measure_speed([run], PLAN, sizes=[96], runtimes=["onnx"])["results"]
    assert (larger["size"], larger["runtime"], larger["model"]) == (96, "onnx", "cyclemlp_nano")


@needs_pt2
def test_an_exported_file_in_its_own_runtime_at_its_own_size(tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    export_run(classifier(tmp_path / "run"), file, "pt2")
    (result,) = measure_speed([str(file)], PLAN)["results"]
    assert (result["runtime"], result["size"]) == ("torch", 64)
    with pytest.raises(ConfigError, match=r"--size 96: .*model.pt2 takes images of 64 pixels only; leave --size out"):
        measure_speed([str(file)], PLAN, sizes=[96])


def test_what_cannot_be_exported_is_measured_in_torch_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    card = ModelCard("segmentation", "resnet10t", "semantic-fpn", ("a", "b"), head_width=16, short_side=64)
    run = str(save_run(tmp_path, card))
    (result,) = measure_speed([run], PLAN)["results"]
    assert (result["runtime"], result["size"]) == ("torch", 64)
    assert "is not measured in onnx: model 'resnet10t' cannot be exported" in caplog.text
    with pytest.raises(ConfigError, match="model 'resnet10t' cannot be exported"):
        measure_speed([run], PLAN, runtimes=["openvino"])


def test_a_size_the_network_does_not_take(tmp_path: Path) -> None:
    card = ModelCard("classification", "resmlp_12_224", "linear", ("a",), image_size=32, crop_pct=1.0)
    run = str(save_run(tmp_path, card))
    with pytest.raises(ConfigError, match=r"--size 48: .* takes no images of this size \(.*\); choose another"):
        measure_speed([run], PLAN, sizes=[48], runtimes=["torch"])


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--runtime 'onx' is not known. Did you mean 'onnx'\? Allowed are torch"):
        measure_speed(["cyclemlp_nano"], PLAN, runtimes=["onx"])
    with pytest.raises(ConfigError, match=r"model 'cyclemlp_nino' is not known. Did you mean 'cyclemlp_nano'\?"):
        measure_speed(["cyclemlp_nino"], PLAN)
    with pytest.raises(CheckpointError, match=r"gone.onnx does not exist"):
        measure_speed([str(tmp_path / "gone.onnx")], PLAN)
