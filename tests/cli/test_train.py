"""The command as a user types it, with the smallest of our networks."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from predictions import segmented

from cyclemlp.cli import main
from cyclemlp.cli.short_help import _FURTHER, FIRST
from cyclemlp.inference.predictor import Predictor

SMALL = [
    "--crop-size",
    "32",
    "--batch-size",
    "2",
    "--workers",
    "0",
    "--device",
    "cpu",
    "--log-every",
    "1",
    "--evaluations",
    "2",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for split, count in {"train": 2, "val": 1}.items():
        for i in range(count):
            mask = (np.mgrid[:40, :50][i % 2] // 7 % 2).astype(np.uint8)
            mask[0, 0] = 255
            image = np.where(mask[..., None] == 1, 180, 60) + random.integers(0, 50, (40, 50, 3))
            for kind, pixels in {"images": image.astype(np.uint8), "masks": mask}.items():
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / kind / split / f"{i}.png")
    (root / "classes.txt").write_text("dark\nlight\n", encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trained(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    with pytest.raises(SystemExit) as left:
        main(["train", "segmentation", *arguments, "--json"])
    assert left.value.code == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        main(["train", "segmentation", *arguments])
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("cyclemlp: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("cyclemlp: ").strip()


def test_from_a_folder_to_a_report_and_on(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    answer = trained(["--data", str(data), "--out", str(out), "--steps", "2", *SMALL], capsys)
    assert answer["task"] == "segmentation"
    assert answer["run"] == str(out)
    assert answer["metrics"]["IoU"].keys() == {"dark", "light"}
    assert (out / "report.html").read_text(encoding="utf-8").count('<img class="sample"') == 1
    result = segmented(Predictor.load(out).predict(data / "images" / "val" / "0.png"))
    assert result.mask.shape == (40, 50)

    longer = trained(["--resume", "--out", str(out), "--steps", "3"], capsys)
    assert longer["metrics"].keys() == answer["metrics"].keys()
    assert yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))["steps"] == 3


@pytest.mark.parametrize("config_first", [True, False])
def test_flags_go_before_the_recipe(
    config_first: bool, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {data}\nsteps: 5\nbatch_size: 0\n", encoding="utf-8")
    flags, config = ["--batch-size", "-3"], ["--config", str(recipe)]
    arguments = config + flags if config_first else flags + config
    assert refusal(arguments, capsys) == "--batch-size -3 is not allowed: more than 0"
    assert refusal(config, capsys) == "--batch-size 0 is not allowed: more than 0"


def test_refusals(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data", str(data), "--out", str(tmp_path / "run")]
    bad = tmp_path / "bad.yaml"
    bad.write_text("epoch: 3\n", encoding="utf-8")
    for arguments, words in [
        ([*given, "--epoch", "3"], "Unknown option: --epoch. Did you mean --epochs?"),
        ([*given, "--config", "none.yaml"], "--config none.yaml: no such file."),
        ([*given, "--config", str(bad)], "unknown option 'epoch'. Did you mean 'epochs'?"),
        ([*given, "--model", "cyclemlp_nan"], "Did you mean 'cyclemlp_nano'?"),
        ([*given, "--head", "semantic-fnp"], "Did you mean 'semantic-fpn'?"),
        ([*given, "--steps", "two"], "--steps"),
        (["--out", str(tmp_path / "run")], "--data"),
        (["--data", str(tmp_path / "nowhere")], "nowhere is missing; give a folder with"),
        (["--data", str(data), "--out", str(data)], "exists and is not empty"),
        (["--resume", "--out", str(tmp_path / "run")], "is no run folder"),
        (["--resume", "--config", str(bad)], "--config and --resume were both given"),
    ]:
        assert words in refusal(arguments, capsys), arguments
    assert not (tmp_path / "run").exists()


def test_help_answers_without_torch() -> None:
    program = (
        "import sys, _cyclemlp_launcher; from cyclemlp.cli import main\n"
        "try: main(['train', 'segmentation', '--help-all'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for option in ("--data", "--max-time", "--rare-class-crops", "--resume", "Learning", "Share of crops"):
        assert option.lower() in done.stdout.lower()


def test_short_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Eight options; the epilogue names some of the others, which exist."""
    with pytest.raises(SystemExit):
        main(["train", "detection", "--help"])
    shown = capsys.readouterr().out
    assert set(re.findall(r"^│ [* ]{0,4}(--[a-z-]+)", shown, re.MULTILINE)) == set(FIRST)
    assert len(FIRST) == 8
    assert "cyclemlp train detection --help-all lists all options" in " ".join(shown.split())
    with pytest.raises(SystemExit):
        main(["train", "detection", "--help-all"])
    known = capsys.readouterr().out
    named = re.findall(r"--[a-z-]+", _FURTHER)
    assert len(named) == 6
    assert all(option in known for option in named)


def test_ctrl_c_says_what_there_is(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before the first checkpoint, after it, and never in silence; also where the folder was chosen by the run."""
    from cyclemlp.training import run
    from cyclemlp.training.checkpoints import checkpoint_path

    with_checkpoint: list[bool] = []

    def interrupted(_fabric: object, config: Any, *_: object) -> None:
        if with_checkpoint:
            checkpoint_path(config.run_dir).parent.mkdir()
            checkpoint_path(config.run_dir).touch()
        else:
            shutil.rmtree(config.run_dir)
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "fit", interrupted)
    caplog.set_level("INFO")
    to_continue = f"to continue: cyclemlp train segmentation --resume {Path('runs/segmentation')}"
    for words in ("the same command begins again", to_continue):
        with pytest.raises(SystemExit) as stopped:
            main(["train", "segmentation", "--data", str(data), *SMALL])
        assert stopped.value.code == 130
        assert words in caplog.text
        assert "stopped by Ctrl-C" in capsys.readouterr().err
        with_checkpoint.append(True)
