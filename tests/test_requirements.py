"""What is installed, as --version says it, and what is too old in one line."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from command_line import command
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OLDEST = {need.name: min(each.version for each in need.specifier) for need in map(Requirement, PROJECT["dependencies"])}


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


def test_the_readme_names_the_oldest_versions() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, written in {"torch": "torch", "torchvision": "torchvision", "numpy": "NumPy", "pillow": "Pillow"}.items():
        assert f"{written} {OLDEST[name]}" in readme
    named = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in PROJECT["classifiers"]]
    pythons = [found[1] for found in named if found]
    assert f"Python {pythons[0]} to {pythons[-1]}" in readme
    assert PROJECT["requires-python"] == f">={pythons[0]}"


def test_the_oldest_packages_are_tested_with_every_extra_of_ours() -> None:
    """The others have programs of others, which ask for newer packages than we do."""
    found = re.search(r"^FLOORS_EXTRAS := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    assert set(found[1].split(",")) == PROJECT["optional-dependencies"].keys() - {"all", "library", "mlflow", "wandb"}
