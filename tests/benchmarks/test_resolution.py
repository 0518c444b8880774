from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import peak
from benchmarks.__main__ import main
from benchmarks.figures import draw_resolution
from benchmarks.resolution import PUBLISHED, SIZES, accuracies, bench_resolution
from cyclemlp.errors import ConfigError
from cyclemlp.inference.rounds import Measurement, Plan, Suite, Timing
from cyclemlp.tasks.card import ModelCard, build_model, save_model


def measure_nothing(suites: Sequence[Suite], plan: Plan) -> Measurement:
    timings = {(each.name, peak.NAME if each.name == peak.NAME else "forward"): Timing((1.0, 1.0)) for each in suites}
    return Measurement(timings, list(range(plan.threads)), None)


def test_the_published_curves_have_all_sizes() -> None:
    assert SIZES[0] == 128
    assert SIZES[-1] == 448
    assert all(len(values) == len(SIZES) for values in PUBLISHED.values())
    assert max(PUBLISHED["CycleMLP-B2"]) == 82.1


def test_cost_grows_with_the_area_and_one_size_is_one_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.networks.measure", measure_nothing)
    record = bench_resolution(["cyclemlp_nano", "resmlp_12_224"], [128, 256], "eager", Plan(rounds=2, threads=1))
    nano, resmlp = record["curves"]
    small, large = (point["flops"] for point in nano["points"])
    assert large / small == pytest.approx(4, rel=0.01)
    assert nano["note"] is None
    assert [point["size"] for point in resmlp["points"]] == [224]
    assert resmlp["note"].startswith("resmlp_12_224 is built for one size")
    draw_resolution(record, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as figure:
        assert figure.width > 1000


def test_accuracy_at_every_size(tmp_path: Path) -> None:
    card = ModelCard("classification", "cyclemlp_nano", "linear", ("a", "b"), image_size=64, crop_pct=0.875)
    model = build_model(card)
    model.get_parameter("head.fc.bias").data[1] = 100.0  # always the second class
    run, data = tmp_path / "run", tmp_path / "data"
    run.mkdir()
    save_model(run, model, card)
    for split in ("train", "val"):
        for name in "ab":
            (data / split / name).mkdir(parents=True)
            Image.new("RGB", (70, 80), "red").save(data / split / name / "x.png")
    found = accuracies(run, data, "val", [32, 96])
    assert found["points"] == [{"size": 32, "top1": 0.5}, {"size": 96, "top1": 0.5}]


def test_a_run_of_another_task(tmp_path: Path) -> None:
    card = ModelCard("segmentation", "cyclemlp_nano", "semantic-fpn", ("a", "b"))
    save_model(tmp_path, build_model(card), card)
    with pytest.raises(ConfigError, match="is for segmentation; Figure 5 is about classification"):
        accuracies(tmp_path, tmp_path, "val", [32])


def test_a_run_without_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["resolution", "--run", str(tmp_path)])
    assert stopped.value.code == 2
    assert "--run and --data belong together" in capsys.readouterr().err
