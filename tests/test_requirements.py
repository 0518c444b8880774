"""What is installed, as --version says it, and what is too old in one line."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from command_line import command


def test_the_versions_that_matter(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--version") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == version("cyclemlp")
    assert lines[1].startswith("python 3.")
    for name in ("torch", "torchvision", "timm", "numpy", "lightning", "onnxruntime"):
        assert f"{name} {version(name)}" in lines
    assert not any(line.startswith(("ruff", "mypy", "pytest", "fvcore")) for line in lines)


def test_a_package_that_is_too_old_is_one_line(tmp_path: Path) -> None:
    """An empty torch of version 1.0 before the real one: what cyclemlp imports of it is missing."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("", encoding="utf-8")
    folder = tmp_path / "torch-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n", encoding="utf-8")
    script = "import _cyclemlp_launcher, sys; sys.argv = ['cyclemlp', *sys.argv[1:]]; _cyclemlp_launcher.main()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def run(argument: str) -> subprocess.CompletedProcess[str]:
        parts = [sys.executable, "-c", script, argument]
        return subprocess.run(parts, env=environment, capture_output=True, text=True, check=False)

    done = run("models")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("cyclemlp: torch 1.0 is installed, but cyclemlp needs torch>=")
    assert done.stderr.endswith("pip install --upgrade cyclemlp\n")
    assert done.stderr.count("\n") == 1
    assert "torch 1.0, too old or too new: needs >=" in run("--version").stdout
