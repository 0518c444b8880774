"""What tests of several folders share: reference values, and checkpoints in the authors' layout."""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: the tests' processes share the cores
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # as the command sets it
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: a second thread each would only wait
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """On tiny images a second thread costs more than it gives, all the more on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Parity:
    """The seeded checkpoints (authors' keys and shapes) and the values that belong to them."""

    expected: dict[str, Any]
    state_dict: Callable[[str], dict[str, Tensor]]
    image: Callable[[int, int], Tensor]


@pytest.fixture(scope="session")
def parity() -> Parity:
    """Reference values of the authors' code; tests/parity/README.md says how they were computed."""
    folder = Path(__file__).parent / "parity"
    path = folder / "synthetic_checkpoint.py"
    spec = importlib.util.spec_from_file_location("synthetic_checkpoint", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    expected = json.loads((folder / "expected.json").read_text())
    return Parity(expected, module.state_dict, module.image)


@pytest.fixture(scope="session")
def authors_file(parity: Parity, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Model name -> a file as the authors release it."""
    folder = tmp_path_factory.mktemp("authors")

    def write(name: str) -> Path:
        path = folder / f"{name}.pth"
        if not path.exists():
            torch.save({"model": parity.state_dict(name)}, path)
        return path

    return write
