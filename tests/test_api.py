"""The Python interface: the same weights, scores and files as the commands, and errors that can be acted on."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import command, refused
from mask_folders import write_mask_folder
from torch import Tensor

import cyclemlp
from cyclemlp.data.augmentation import MaskAugmentation
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.export import run as export_module
from cyclemlp.tasks.build_config import build_config
from cyclemlp.tasks.options import Length, Machine, Optimisation, Recording
from cyclemlp.tasks.segmentation.config import SegmentationConfig
from cyclemlp.training import loop
from cyclemlp.training.run import Run
from cyclemlp.training.state import TrainingState

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS: dict[str, Any] = {
    "model": "cyclemlp",
    "head_width": 8,
    "steps": 2,
    "batch_size": 2,
    "lr": 1e-3 / 3,
    "crop_size": 32,
    "scale": (0.9, 1.1),
    "log_every": 1,
    "workers": 0,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mask_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data: Path, one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run trained by a script."""
    return cyclemlp.train("segmentation", data=str(data), out=tmp_path_factory.mktemp("script") / "run", **OPTIONS)


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """What a command prints with --json."""
    assert command(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def as_typed(options: dict[str, Any]) -> Iterator[object]:
    """The options as they are typed."""
    for name, value in options.items():
        yield f"--{name.replace('_', '-')}"
        yield from value if isinstance(value, tuple) else [value]


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_script_and_the_command_train_the_same_weights(
    run: Run, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    printed = answer(capsys, "train", "segmentation", "--data", data, "--out", out, *as_typed(OPTIONS))
    assert weights(out) == weights(run.folder)
    assert printed["metrics"] == run.metrics
    saved, scripted = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (out, run.folder))
    assert saved | {"out": ""} == scripted | {"out": ""}


def test_a_typed_config_trains_them_too(run: Run, data: Path, tmp_path: Path) -> None:
    config = SegmentationConfig(
        data=data,
        out=tmp_path / "run",
        head_width=8,
        length=Length(steps=2),
        optimisation=Optimisation(batch_size=2, lr=1e-3 / 3),
        augmentation=MaskAugmentation(crop_size=32, scale=(0.9, 1.1)),
        recording=Recording(log_every=1),
        machine=Machine(workers=0, device="cpu"),
    )
    again = cyclemlp.train_segmentation(config)
    assert weights(again.folder) == weights(run.folder)
    assert again.metrics == run.metrics


def test_evaluate_returns_what_the_command_prints(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = cyclemlp.evaluate(run, device="cpu")
    assert report["metrics"] == run.metrics
    assert report == answer(capsys, "eval", run.folder, "--device", "cpu")
    views = cyclemlp.evaluate(run.folder, split="train", scales=[1, 1.5], flip=True, out=tmp_path, device="cpu")
    typed = ("--split", "train", "--scales", 1, 1.5, "--flip", "--out", tmp_path, "--device", "cpu")
    assert views == answer(capsys, "eval", run.folder, *typed)
    assert views["images"] == 6


def test_predict_returns_what_the_command_prints(
    run: Run, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sorted((data / "images" / "val").iterdir())
    done = cyclemlp.predict(run, images, out=tmp_path / "out", flip=True, device="cpu")
    assert [entry["image"] for entry in done.images] == list(map(str, images))
    typed = ("--out", tmp_path / "out", "--flip", "--device", "cpu")
    assert done.to_dict(run.folder) == answer(capsys, "predict", run.folder, *images, *typed)
    one = cyclemlp.predict(str(run.folder), data / "images" / "val", out=tmp_path / "out", flip=True, device="cpu")
    assert one.images == done.images


def test_export_returns_what_the_command_prints(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both call the same function with the same arguments; what that does is tested with the formats."""

    def export_run(
        run: Path,
        out: Path,
        format: str,  # noqa: A002
        *,
        limit: float,
        for_size: str | None,
        raw: bool,
        opset: int | None,
    ) -> dict[str, object]:
        options = {"limit": limit, "for_size": for_size, "raw": raw, "opset": opset}
        return {"run": str(run), "out": str(out), "format": format, **options}

    monkeypatch.setattr(export_module, "export_run", export_run)
    out = tmp_path / "model.xml"
    report = cyclemlp.export(run, out=out, format="openvino", limit=0.5, for_size="64x96", raw=True, opset=18)
    options = {"limit": 0.5, "for_size": "64x96", "raw": True, "opset": 18}
    shared = {"run": str(run.folder), "out": str(out)}
    assert report == shared | {"format": "openvino", **options}
    typed = ("--out", out, "--format", "openvino", "--limit", 0.5, "--for-size", "64x96", "--raw", "--opset", 18)
    assert answer(capsys, "export", run.folder, *typed) == report
    usual = {"format": "onnx", "limit": 1e-4, "for_size": None, "raw": False, "opset": None}
    assert cyclemlp.export(run.folder, out=str(out)) == shared | usual


def test_images_that_fail_are_listed_and_all_of_them_an_error(run: Run, data: Path, tmp_path: Path) -> None:
    broken, sound = tmp_path / "broken.png", data / "images" / "val" / "0.png"
    broken.write_bytes(b"no image")
    done = cyclemlp.predict(run, [broken, sound], out=tmp_path / "out", device="cpu")
    assert [entry["image"] for entry in done.images] == [str(sound)]
    assert [entry["image"] for entry in done.failed] == [str(broken)]
    with pytest.raises(DataError, match=r"broken\.png"):
        cyclemlp.predict(run, broken, out=tmp_path / "out", device="cpu")


def test_interrupted_training_is_resumed(run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the folder is given then: a run keeps its options."""
    usual, out = loop.accumulate_gradients, tmp_path / "run"

    def interrupted(state: TrainingState, batches: Iterator[Any]) -> dict[str, Tensor]:
        os.kill(os.getpid(), signal.SIGINT)
        return usual(state, batches)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "accumulate_gradients", interrupted)
        with pytest.raises(cyclemlp.TrainingStopped) as stopped:
            cyclemlp.train("segmentation", data=data, out=out, **OPTIONS)
    assert (stopped.value.step, stopped.value.run_dir, stopped.value.signum) == (1, out, signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert not (out / "model.safetensors").exists()
    again = cyclemlp.train("segmentation", out=out, resume=True)
    assert weights(again.folder) == weights(run.folder)
    assert again.metrics == run.metrics


def test_a_recipe_is_found_by_its_name() -> None:
    config = build_config("segmentation", {"data": Path("d"), "lr": 0.5}, "sample-segmentation")
    assert isinstance(config, SegmentationConfig)
    assert (config.optimisation.lr, config.optimisation.batch_size) == (0.5, 8)
    assert (config.augmentation.crop_size, config.loss.class_weights) == (192, "fourth-root-inverse")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, "Unknown option: --epoch. Did you mean --epochs?"),
        ({"data": "d", "epoch": 3}, "Unknown option: --epoch. Did you mean --epochs?"),
        ({}, "Parameter --data requires an argument."),
        ({"data": "d", "lr": "fast"}, 'Invalid value for --lr: unable to convert "fast" into float.'),
        ({"data": "d", "scale": 0.5}, "Parameter --scale requires 2"),
        ({"data": "d", "batch_size": True}, "Parameter --batch-size requires an argument."),
        ({"data": "d", "precision": "bf8"}, 'Invalid value "bf8" for --precision. Choose from: "auto"'),
        ({"data": "d", "batch_size": 0}, "--batch-size 0 is not allowed: more than 0"),
        ({"data": "d", "config": "sample-detection"}, "is for detection: cyclemlp train detection"),
        ({"data": "d", "config": "sample-segmentatoin"}, "no such file. Did you mean 'sample-segmentation'?"),
        ({"resume": True, "out": "nowhere"}, "nowhere is no run folder"),
        ({"resume": True, "config": "sample-segmentation"}, "--config and --resume were both given"),
    ],
)
def test_options_of_training_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        cyclemlp.train("segmentation", **options)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_task_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'detection'\?"):
        cyclemlp.train("detections", data="d")


def test_options_of_the_other_functions_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Unknown option: --scale\. Did you mean --scales\?"):
        cyclemlp.evaluate("run", scale=2)
    with pytest.raises(ConfigError, match="Invalid value for --scales"):
        cyclemlp.evaluate("run", scales="large")
    with pytest.raises(ConfigError, match=r"Unknown option: --score-treshold\. Did you mean --score-threshold\?"):
        cyclemlp.predict("run", "a.png", out=tmp_path, score_treshold=0.5)
    with pytest.raises(ConfigError, match="Invalid value for --window"):
        cyclemlp.predict("run", "a.png", out=tmp_path, window="wide")


def test_a_whole_number_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"--batch-size 2.5 is not allowed: a whole number"):
        cyclemlp.train("segmentation", data="x", batch_size=2.5)
    with pytest.raises(ConfigError, match=r"--window 40.5 is not allowed: a whole number"):
        cyclemlp.predict("run", "x.png", out="o", window=40.5)
    for arguments in (("train", "segmentation", "--data", "x", "--steps", "3.5"), ("bench", "x", "--size", "64.5")):
        assert f"{arguments[-2]} {arguments[-1]} is not allowed: a whole number" in refused(capsys, *arguments)
