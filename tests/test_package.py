"""What `import cyclemlp` offers, and what it and the command line do not import."""

import subprocess
import sys

import pytest

import cyclemlp
from cyclemlp.export.formats import Graph  # noqa: F401  which must not take the name of the function

PUBLIC = {
    *("train", "train_segmentation", "train_classification", "train_detection", "train_instance_segmentation"),
    *("evaluate", "predict", "export", "Predictor", "TrainingStopped"),
    *("CycleFC", "lean_", "plain_", "load_checkpoint", "models", "ops"),
    *("UserError", "DataError", "ConfigError", "CheckpointError", "MissingExtraError"),
}
HEAVY = {"torch", "torchvision", "timm", "lightning", "safetensors", "matplotlib", "onnxruntime", "openvino", "scipy"}
STARTS = {
    "python -m cyclemlp": ("-m", "cyclemlp"),
    "cyclemlp": ("-c", "from _cyclemlp_launcher import main; main()"),
}


def test_dir_lists_the_public_names() -> None:
    assert set(dir(cyclemlp)) == PUBLIC
    assert sorted(cyclemlp.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(cyclemlp, name).__name__.endswith(name.lower() if name in ("models", "ops") else name)


def test_export_is_the_function() -> None:
    from cyclemlp import api, export

    assert export is cyclemlp.export is api.export


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'cyclemlp' has no attribute 'trian'"):
        cyclemlp.trian  # noqa: B018


def imported(*arguments: str, status: int = 0) -> tuple[set[str], str]:
    """The modules that a Python process has imported at its end, and what it writes to standard error otherwise."""
    done = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    lines = done.stderr.splitlines()
    timed = [line for line in lines if line.startswith("import time:")]
    return {line.split("|")[-1].strip() for line in timed}, "\n".join(line for line in lines if line not in timed)


def test_importing_the_package_registers_the_models_and_no_more() -> None:
    modules, _ = imported("-c", "import cyclemlp, timm; assert timm.is_model('cyclemlp_b1')")
    assert "cyclemlp.models" in modules
    assert not modules & {"cyclemlp.api", "cyclemlp.training", "cyclemlp.inference", "cyclemlp.cli", "lightning"}


@pytest.mark.parametrize("start", STARTS)
def test_help_imports_no_libraries(start: str) -> None:
    modules, _ = imported(*STARTS[start], "--help")
    assert "cyclemlp.cli" in modules
    assert not modules & (HEAVY | {"numpy", "PIL", "yaml", "cyclemlp.api", "cyclemlp.models"})


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("option", "status"), [("--help", 0), ("--epoch", 2)])
def test_options_are_read_without_torch(start: str, option: str, status: int) -> None:
    arguments = ("train", "segmentation", option, *(["3"] if status else []))
    modules, written = imported(*STARTS[start], *arguments, status=status)
    assert not modules & (HEAVY | {"yaml", "cyclemlp.models", "cyclemlp.training.run"})
    if status:
        assert written == "cyclemlp: Unknown option: --epoch. Did you mean --epochs? See --help."
