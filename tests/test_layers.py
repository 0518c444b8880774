"""Imports run downwards only, and the heavy or optional packages stay where they are used."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cyclemlp
from cyclemlp.tasks.registry import task_names

ROOT = Path(cyclemlp.__file__).parent
FLOORS = [
    ["ops"],
    ["models"],
    ["heads", "data"],
    ["tasks"],
    ["inference"],
    ["export", "training"],
    ["api"],
    ["cli"],
]
OPTIONAL = (
    "lightning",
    "faster_coco_eval",
    "matplotlib",
    "mpl_toolkits",
    "gradio",
    "onnx",
    "openvino",
    "av",
    "mlflow",
    "wandb",
)


def _modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether the import stands at the top level of the file)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for name in names:
            yield name, id(node) in top


def _floor(package: str) -> int | None:
    return next((level for level, packages in enumerate(FLOORS) if package in packages), None)


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    level = _floor(own)
    if level is None:  # the modules below all floors (errors, files) and the package itself
        return
    for name, _ in _imports(path):
        if not name.startswith("cyclemlp."):
            continue
        other = name.split(".")[1]
        other_level = _floor(other)
        if other == own or other_level is None:
            continue
        assert other_level < level, f"{path.relative_to(ROOT)} imports {name}"


def test_every_package_has_its_floor() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages | {"api"} == {package for floor in FLOORS for package in floor}


def test_prediction_does_not_need_the_training_code() -> None:
    """`training` may import `inference`, never the reverse; tasks know neither."""
    for own in ("inference", "export", "tasks"):
        for path in sorted((ROOT / own).rglob("*.py")):
            assert not [name for name, _ in _imports(path) if name.startswith("cyclemlp.training")], path
    assert any(
        name.startswith("cyclemlp.inference")
        for path in (ROOT / "training").rglob("*.py")
        for name, _ in _imports(path)
    )


def test_only_the_tasks_themselves_are_named_in_their_folders() -> None:
    """A new task is one folder and one line in the registry, so no other module may name a task."""
    names = set(task_names())
    for path in _modules():
        if path.relative_to(ROOT).parts[0] not in ("inference", "export", "training", "cli"):
            continue  # below the tasks these words are names of losses and of JSON keys
        found = {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and node.value in names
        }
        assert not found, f"{path.relative_to(ROOT)} names {found}"


def test_the_core_does_not_import_optional_packages() -> None:
    """Importing everything that is installed without extras leaves the extras alone; timm imports wandb by itself."""
    code = (
        "import sys, timm\n"
        "before = set(sys.modules)\n"
        "import cyclemlp, cyclemlp.models, cyclemlp.heads.segmentation, cyclemlp.tasks.card, "
        "cyclemlp.inference.predictor\n"
        f"loaded = [name for name in {OPTIONAL} if name in sys.modules.keys() - before]\n"
        "sys.exit(', '.join(loaded) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_answers_without_torch() -> None:
    code = (
        "import sys\nfrom _cyclemlp_launcher import main\nsys.argv = ['cyclemlp', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.exit(int('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, "torch was imported, or: " + done.stderr
    assert "segment" in done.stdout or "train" in done.stdout
